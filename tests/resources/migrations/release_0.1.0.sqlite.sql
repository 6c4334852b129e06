-- The database of release 0.1.0, before it had revisions: sqlite3's .dump.
BEGIN TRANSACTION;
CREATE TABLE alert_channels (
	channel VARCHAR(100) NOT NULL,
	heartbeat_at DATETIME,
	synced_at DATETIME,
	held_by VARCHAR(200) DEFAULT '' NOT NULL,
	held_until DATETIME,
	PRIMARY KEY (channel)
);
INSERT INTO "alert_channels" VALUES('pager','2026-03-01 12:00:00.000000',NULL,'',NULL);
CREATE TABLE alert_events (
	id INTEGER NOT NULL,
	alert_id INTEGER NOT NULL,
	change VARCHAR(16) NOT NULL,
	message TEXT NOT NULL,
	who VARCHAR(200) DEFAULT '' NOT NULL,
	day VARCHAR(10),
	at DATETIME NOT NULL,
	snapshot JSON,
	PRIMARY KEY (id),
	FOREIGN KEY(alert_id) REFERENCES alerts (id)
);
INSERT INTO "alert_events" VALUES(1,1,'opened','drift','','2026-03-01','2026-03-01 12:00:00.000000','{"id": 1, "fingerprint": "3040850ee3fcb538", "model": "fraud", "cause": "drift/drift", "column": "", "severity": "warn", "owner": "", "summary": "drift", "runbook": "", "links": {"run": "/runs/1"}, "count": 1, "since_day": "2026-03-01", "last_day": "2026-03-01", "opened_at": "2026-03-01T12:00:00+00:00", "updated_at": "2026-03-01T12:00:00+00:00", "acknowledged_at": null, "acknowledged_by": null, "silenced_until": null, "flapping": false, "clear_since": null, "resolved_at": null, "resolved_day": null, "resolution": null, "state": "open"}');
INSERT INTO "alert_events" VALUES(2,1,'acknowledged','looking','ada',NULL,'2026-03-01 12:00:00.000000','{"id": 1, "fingerprint": "3040850ee3fcb538", "model": "fraud", "cause": "drift/drift", "column": "", "severity": "warn", "owner": "", "summary": "drift", "runbook": "", "links": {"run": "/runs/1"}, "count": 1, "since_day": "2026-03-01", "last_day": "2026-03-01", "opened_at": "2026-03-01T12:00:00+00:00", "updated_at": "2026-03-01T12:00:00+00:00", "acknowledged_at": "2026-03-01T12:00:00+00:00", "acknowledged_by": "ada", "silenced_until": null, "flapping": false, "clear_since": null, "resolved_at": null, "resolved_day": null, "resolution": null, "state": "acknowledged"}');
INSERT INTO "alert_events" VALUES(3,1,'resolved','the check passed','','2026-03-02','2026-03-01 14:00:00.000000','{"id": 1, "fingerprint": "3040850ee3fcb538", "model": "fraud", "cause": "drift/drift", "column": "", "severity": "warn", "owner": "", "summary": "drift", "runbook": "", "links": {"run": "/runs/1"}, "count": 1, "since_day": "2026-03-01", "last_day": "2026-03-01", "opened_at": "2026-03-01T12:00:00+00:00", "updated_at": "2026-03-01T14:00:00+00:00", "acknowledged_at": "2026-03-01T12:00:00+00:00", "acknowledged_by": "ada", "silenced_until": null, "flapping": false, "clear_since": null, "resolved_at": "2026-03-01T14:00:00+00:00", "resolved_day": "2026-03-02", "resolution": "the check passed", "state": "resolved"}');
INSERT INTO "alert_events" VALUES(4,2,'opened','it failed','',NULL,'2026-03-01 12:00:00.000000','{"id": 2, "fingerprint": "5e81040aedb13d8a", "model": "fraud", "cause": "run/fraud_train", "column": "", "severity": "page", "owner": "", "summary": "it failed", "runbook": "", "links": {}, "count": 1, "since_day": null, "last_day": null, "opened_at": "2026-03-01T12:00:00+00:00", "updated_at": "2026-03-01T12:00:00+00:00", "acknowledged_at": null, "acknowledged_by": null, "silenced_until": null, "flapping": false, "clear_since": null, "resolved_at": null, "resolved_day": null, "resolution": null, "state": "open"}');
CREATE TABLE alert_outbox (
	id INTEGER NOT NULL,
	channel VARCHAR(100) NOT NULL,
	event_id INTEGER NOT NULL,
	alert_id INTEGER NOT NULL,
	created_at DATETIME NOT NULL,
	due_at DATETIME NOT NULL,
	tries INTEGER DEFAULT '0' NOT NULL,
	error TEXT,
	delivered_at DATETIME,
	message VARCHAR(40),
	severity VARCHAR(8) DEFAULT 'page' NOT NULL,
	PRIMARY KEY (id),
	FOREIGN KEY(event_id) REFERENCES alert_events (id)
);
INSERT INTO "alert_outbox" VALUES(1,'pager',1,1,'2026-03-01 12:00:00.000000','2026-03-01 12:00:00.000000',0,NULL,'2026-03-01 12:00:00.000000','message-1','warn');
INSERT INTO "alert_outbox" VALUES(2,'pager',2,1,'2026-03-01 12:00:00.000000','2026-03-01 12:00:00.000000',0,NULL,NULL,NULL,'warn');
INSERT INTO "alert_outbox" VALUES(3,'pager',3,1,'2026-03-01 14:00:00.000000','2026-03-01 14:00:00.000000',0,NULL,NULL,NULL,'warn');
INSERT INTO "alert_outbox" VALUES(4,'pager',4,2,'2026-03-01 12:00:00.000000','2026-03-01 12:00:00.000000',0,NULL,NULL,NULL,'page');
CREATE TABLE alert_positions (
	stream VARCHAR(100) NOT NULL,
	position INTEGER NOT NULL,
	PRIMARY KEY (stream)
);
INSERT INTO "alert_positions" VALUES('schema',4);
INSERT INTO "alert_positions" VALUES('check_evaluations',7);
CREATE TABLE alerts (
	id INTEGER NOT NULL,
	fingerprint VARCHAR(16) DEFAULT '' NOT NULL,
	model VARCHAR(200) NOT NULL,
	cause VARCHAR(300) NOT NULL,
	"column" VARCHAR(300) DEFAULT '' NOT NULL,
	severity VARCHAR(8) NOT NULL,
	owner VARCHAR(200) DEFAULT '' NOT NULL,
	summary TEXT NOT NULL,
	runbook VARCHAR(300) DEFAULT '' NOT NULL,
	links JSON NOT NULL,
	count INTEGER NOT NULL,
	since_day VARCHAR(10),
	last_day VARCHAR(10),
	opened_at DATETIME NOT NULL,
	updated_at DATETIME NOT NULL,
	acknowledged_at DATETIME,
	acknowledged_by VARCHAR(200),
	silenced_until DATETIME,
	flapping BOOLEAN DEFAULT 0 NOT NULL,
	clear_since DATETIME,
	resolved_at DATETIME,
	resolved_day VARCHAR(10),
	resolution TEXT,
	PRIMARY KEY (id)
);
INSERT INTO "alerts" VALUES(1,'3040850ee3fcb538','fraud','drift/drift','','warn','','drift','','{"run": "/runs/1"}',1,'2026-03-01','2026-03-01','2026-03-01 12:00:00.000000','2026-03-01 14:00:00.000000','2026-03-01 12:00:00.000000','ada',NULL,0,NULL,'2026-03-01 14:00:00.000000','2026-03-02','the check passed');
INSERT INTO "alerts" VALUES(2,'5e81040aedb13d8a','fraud','run/fraud_train','','page','','it failed','','{}',1,NULL,NULL,'2026-03-01 12:00:00.000000','2026-03-01 12:00:00.000000',NULL,NULL,NULL,0,NULL,NULL,NULL,NULL);
CREATE TABLE promotions (
	id INTEGER NOT NULL,
	model VARCHAR(200) NOT NULL,
	number INTEGER NOT NULL,
	action VARCHAR(16) NOT NULL,
	version VARCHAR(32) NOT NULL,
	previous VARCHAR(32),
	reason TEXT NOT NULL,
	verdicts JSON NOT NULL,
	dagster_run VARCHAR(64) NOT NULL,
	who VARCHAR(200) NOT NULL,
	at DATETIME NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (model, number)
);
INSERT INTO "promotions" VALUES(1,'fraud',1,'promote','1',NULL,'meets the floor','{"gate": {"passed": true, "reasons": ["average_precision 0.75"]}}','run-1','ada','2026-03-01 10:00:00.000000');
INSERT INTO "promotions" VALUES(2,'fraud',2,'refuse','2','1','gain -0.0058','{"gate": {"passed": true, "reasons": ["average_precision 0.75"]}}','run-1','ada','2026-03-02 10:00:00.000000');
INSERT INTO "promotions" VALUES(3,'fraud',3,'promote','3','1','gain +0.0746','{"gate": {"passed": true, "reasons": ["average_precision 0.75"]}}','run-1','ada','2026-03-03 10:00:00.000000');
CREATE TRIGGER promotions_no_update BEFORE update ON promotions BEGIN SELECT RAISE(ABORT, 'the ledger of promotions is append-only'); END;
CREATE TRIGGER promotions_no_delete BEFORE delete ON promotions BEGIN SELECT RAISE(ABORT, 'the ledger of promotions is append-only'); END;
CREATE INDEX ix_alert_events_alert_id ON alert_events (alert_id);
CREATE INDEX undelivered_of_alert ON alert_outbox (alert_id, channel, delivered_at);
CREATE INDEX undelivered ON alert_outbox (channel, delivered_at);
CREATE UNIQUE INDEX one_open_fingerprint ON alerts (fingerprint) WHERE resolved_at IS NULL;
CREATE TRIGGER alert_events_no_update BEFORE update ON alert_events BEGIN SELECT RAISE(ABORT, 'the history of alerts is append-only'); END;
CREATE TRIGGER alert_events_no_delete BEFORE delete ON alert_events BEGIN SELECT RAISE(ABORT, 'the history of alerts is append-only'); END;
COMMIT;
