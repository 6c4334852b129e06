-- The database of release 0.1.0, before it had revisions: pg_dump --inserts --no-owner.
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
CREATE FUNCTION public.alert_events_append_only() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION 'the history of alerts is append-only'; END $$;
CREATE FUNCTION public.promotions_append_only() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION 'the ledger of promotions is append-only'; END $$;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE public.alert_channels (
    channel character varying(100) NOT NULL,
    heartbeat_at timestamp without time zone,
    synced_at timestamp without time zone,
    held_by character varying(200) DEFAULT ''::character varying NOT NULL,
    held_until timestamp without time zone
);
CREATE TABLE public.alert_events (
    id integer NOT NULL,
    alert_id integer NOT NULL,
    change character varying(16) NOT NULL,
    message text NOT NULL,
    who character varying(200) DEFAULT ''::character varying NOT NULL,
    day character varying(10),
    at timestamp without time zone NOT NULL,
    snapshot json
);
CREATE SEQUENCE public.alert_events_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.alert_events_id_seq OWNED BY public.alert_events.id;
CREATE TABLE public.alert_outbox (
    id integer NOT NULL,
    channel character varying(100) NOT NULL,
    event_id integer NOT NULL,
    alert_id integer NOT NULL,
    created_at timestamp without time zone NOT NULL,
    due_at timestamp without time zone NOT NULL,
    tries integer DEFAULT 0 NOT NULL,
    error text,
    delivered_at timestamp without time zone,
    message character varying(40),
    severity character varying(8) DEFAULT 'page'::character varying NOT NULL
);
CREATE SEQUENCE public.alert_outbox_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.alert_outbox_id_seq OWNED BY public.alert_outbox.id;
CREATE TABLE public.alert_positions (
    stream character varying(100) NOT NULL,
    "position" integer NOT NULL
);
CREATE TABLE public.alerts (
    id integer NOT NULL,
    fingerprint character varying(16) DEFAULT ''::character varying NOT NULL,
    model character varying(200) NOT NULL,
    cause character varying(300) NOT NULL,
    "column" character varying(300) DEFAULT ''::character varying NOT NULL,
    severity character varying(8) NOT NULL,
    owner character varying(200) DEFAULT ''::character varying NOT NULL,
    summary text NOT NULL,
    runbook character varying(300) DEFAULT ''::character varying NOT NULL,
    links json NOT NULL,
    count integer NOT NULL,
    since_day character varying(10),
    last_day character varying(10),
    opened_at timestamp without time zone NOT NULL,
    updated_at timestamp without time zone NOT NULL,
    acknowledged_at timestamp without time zone,
    acknowledged_by character varying(200),
    silenced_until timestamp without time zone,
    flapping boolean DEFAULT false NOT NULL,
    clear_since timestamp without time zone,
    resolved_at timestamp without time zone,
    resolved_day character varying(10),
    resolution text
);
CREATE SEQUENCE public.alerts_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.alerts_id_seq OWNED BY public.alerts.id;
CREATE TABLE public.promotions (
    id integer NOT NULL,
    model character varying(200) NOT NULL,
    number integer NOT NULL,
    action character varying(16) NOT NULL,
    version character varying(32) NOT NULL,
    previous character varying(32),
    reason text NOT NULL,
    verdicts json NOT NULL,
    dagster_run character varying(64) NOT NULL,
    who character varying(200) NOT NULL,
    at timestamp without time zone NOT NULL
);
CREATE SEQUENCE public.promotions_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.promotions_id_seq OWNED BY public.promotions.id;
ALTER TABLE ONLY public.alert_events ALTER COLUMN id SET DEFAULT nextval('public.alert_events_id_seq'::regclass);
ALTER TABLE ONLY public.alert_outbox ALTER COLUMN id SET DEFAULT nextval('public.alert_outbox_id_seq'::regclass);
ALTER TABLE ONLY public.alerts ALTER COLUMN id SET DEFAULT nextval('public.alerts_id_seq'::regclass);
ALTER TABLE ONLY public.promotions ALTER COLUMN id SET DEFAULT nextval('public.promotions_id_seq'::regclass);
INSERT INTO public.alert_channels VALUES ('pager', '2026-03-01 12:00:00', NULL, '', NULL);
INSERT INTO public.alert_events VALUES (1, 1, 'opened', 'drift', '', '2026-03-01', '2026-03-01 12:00:00', '{"id": 1, "fingerprint": "3040850ee3fcb538", "model": "fraud", "cause": "drift/drift", "column": "", "severity": "warn", "owner": "", "summary": "drift", "runbook": "", "links": {"run": "/runs/1"}, "count": 1, "since_day": "2026-03-01", "last_day": "2026-03-01", "opened_at": "2026-03-01T12:00:00+00:00", "updated_at": "2026-03-01T12:00:00+00:00", "acknowledged_at": null, "acknowledged_by": null, "silenced_until": null, "flapping": false, "clear_since": null, "resolved_at": null, "resolved_day": null, "resolution": null, "state": "open"}');
INSERT INTO public.alert_events VALUES (2, 1, 'acknowledged', 'looking', 'ada', NULL, '2026-03-01 12:00:00', '{"id": 1, "fingerprint": "3040850ee3fcb538", "model": "fraud", "cause": "drift/drift", "column": "", "severity": "warn", "owner": "", "summary": "drift", "runbook": "", "links": {"run": "/runs/1"}, "count": 1, "since_day": "2026-03-01", "last_day": "2026-03-01", "opened_at": "2026-03-01T12:00:00+00:00", "updated_at": "2026-03-01T12:00:00+00:00", "acknowledged_at": "2026-03-01T12:00:00+00:00", "acknowledged_by": "ada", "silenced_until": null, "flapping": false, "clear_since": null, "resolved_at": null, "resolved_day": null, "resolution": null, "state": "acknowledged"}');
INSERT INTO public.alert_events VALUES (3, 1, 'resolved', 'the check passed', '', '2026-03-02', '2026-03-01 14:00:00', '{"id": 1, "fingerprint": "3040850ee3fcb538", "model": "fraud", "cause": "drift/drift", "column": "", "severity": "warn", "owner": "", "summary": "drift", "runbook": "", "links": {"run": "/runs/1"}, "count": 1, "since_day": "2026-03-01", "last_day": "2026-03-01", "opened_at": "2026-03-01T12:00:00+00:00", "updated_at": "2026-03-01T14:00:00+00:00", "acknowledged_at": "2026-03-01T12:00:00+00:00", "acknowledged_by": "ada", "silenced_until": null, "flapping": false, "clear_since": null, "resolved_at": "2026-03-01T14:00:00+00:00", "resolved_day": "2026-03-02", "resolution": "the check passed", "state": "resolved"}');
INSERT INTO public.alert_events VALUES (4, 2, 'opened', 'it failed', '', NULL, '2026-03-01 12:00:00', '{"id": 2, "fingerprint": "5e81040aedb13d8a", "model": "fraud", "cause": "run/fraud_train", "column": "", "severity": "page", "owner": "", "summary": "it failed", "runbook": "", "links": {}, "count": 1, "since_day": null, "last_day": null, "opened_at": "2026-03-01T12:00:00+00:00", "updated_at": "2026-03-01T12:00:00+00:00", "acknowledged_at": null, "acknowledged_by": null, "silenced_until": null, "flapping": false, "clear_since": null, "resolved_at": null, "resolved_day": null, "resolution": null, "state": "open"}');
INSERT INTO public.alert_outbox VALUES (2, 'pager', 2, 1, '2026-03-01 12:00:00', '2026-03-01 12:00:00', 0, NULL, NULL, NULL, 'warn');
INSERT INTO public.alert_outbox VALUES (3, 'pager', 3, 1, '2026-03-01 14:00:00', '2026-03-01 14:00:00', 0, NULL, NULL, NULL, 'warn');
INSERT INTO public.alert_outbox VALUES (4, 'pager', 4, 2, '2026-03-01 12:00:00', '2026-03-01 12:00:00', 0, NULL, NULL, NULL, 'page');
INSERT INTO public.alert_outbox VALUES (1, 'pager', 1, 1, '2026-03-01 12:00:00', '2026-03-01 12:00:00', 0, NULL, '2026-03-01 12:00:00', 'message-1', 'warn');
INSERT INTO public.alert_positions VALUES ('schema', 4);
INSERT INTO public.alert_positions VALUES ('check_evaluations', 7);
INSERT INTO public.alerts VALUES (1, '3040850ee3fcb538', 'fraud', 'drift/drift', '', 'warn', '', 'drift', '', '{"run": "/runs/1"}', 1, '2026-03-01', '2026-03-01', '2026-03-01 12:00:00', '2026-03-01 14:00:00', '2026-03-01 12:00:00', 'ada', NULL, false, NULL, '2026-03-01 14:00:00', '2026-03-02', 'the check passed');
INSERT INTO public.alerts VALUES (2, '5e81040aedb13d8a', 'fraud', 'run/fraud_train', '', 'page', '', 'it failed', '', '{}', 1, NULL, NULL, '2026-03-01 12:00:00', '2026-03-01 12:00:00', NULL, NULL, NULL, false, NULL, NULL, NULL, NULL);
INSERT INTO public.promotions VALUES (1, 'fraud', 1, 'promote', '1', NULL, 'meets the floor', '{"gate": {"passed": true, "reasons": ["average_precision 0.75"]}}', 'run-1', 'ada', '2026-03-01 10:00:00.000000');
INSERT INTO public.promotions VALUES (2, 'fraud', 2, 'refuse', '2', '1', 'gain -0.0058', '{"gate": {"passed": true, "reasons": ["average_precision 0.75"]}}', 'run-1', 'ada', '2026-03-02 10:00:00.000000');
INSERT INTO public.promotions VALUES (3, 'fraud', 3, 'promote', '3', '1', 'gain +0.0746', '{"gate": {"passed": true, "reasons": ["average_precision 0.75"]}}', 'run-1', 'ada', '2026-03-03 10:00:00.000000');
SELECT pg_catalog.setval('public.alert_events_id_seq', 4, true);
SELECT pg_catalog.setval('public.alert_outbox_id_seq', 4, true);
SELECT pg_catalog.setval('public.alerts_id_seq', 2, true);
SELECT pg_catalog.setval('public.promotions_id_seq', 3, true);
ALTER TABLE ONLY public.alert_channels
    ADD CONSTRAINT alert_channels_pkey PRIMARY KEY (channel);
ALTER TABLE ONLY public.alert_events
    ADD CONSTRAINT alert_events_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.alert_outbox
    ADD CONSTRAINT alert_outbox_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.alert_positions
    ADD CONSTRAINT alert_positions_pkey PRIMARY KEY (stream);
ALTER TABLE ONLY public.alerts
    ADD CONSTRAINT alerts_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.promotions
    ADD CONSTRAINT promotions_model_number_key UNIQUE (model, number);
ALTER TABLE ONLY public.promotions
    ADD CONSTRAINT promotions_pkey PRIMARY KEY (id);
CREATE INDEX ix_alert_events_alert_id ON public.alert_events USING btree (alert_id);
CREATE UNIQUE INDEX one_open_fingerprint ON public.alerts USING btree (fingerprint) WHERE (resolved_at IS NULL);
CREATE INDEX undelivered ON public.alert_outbox USING btree (channel, delivered_at);
CREATE INDEX undelivered_of_alert ON public.alert_outbox USING btree (alert_id, channel, delivered_at);
CREATE TRIGGER alert_events_append_only BEFORE DELETE OR UPDATE ON public.alert_events FOR EACH ROW EXECUTE FUNCTION public.alert_events_append_only();
CREATE TRIGGER promotions_append_only BEFORE DELETE OR UPDATE ON public.promotions FOR EACH ROW EXECUTE FUNCTION public.promotions_append_only();
ALTER TABLE ONLY public.alert_events
    ADD CONSTRAINT alert_events_alert_id_fkey FOREIGN KEY (alert_id) REFERENCES public.alerts(id);
ALTER TABLE ONLY public.alert_outbox
    ADD CONSTRAINT alert_outbox_event_id_fkey FOREIGN KEY (event_id) REFERENCES public.alert_events(id);
