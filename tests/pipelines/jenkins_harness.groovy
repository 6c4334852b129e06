// Runs a declarative Jenkinsfile stage by stage, without Jenkins:
//
//     groovy jenkins_harness.groovy Jenkinsfile [branch] [answer of a person: yes or no]
//
// It is a harness of this project's tests, not Jenkins. It has the directives that the Jenkinsfile uses and refuses all
// others. Real: each `sh` step is a shell in the folder of its agent; `stash` and `unstash` copy files; a stage that
// fails skips all later ones; `post` runs as Jenkins runs it. Not covered: plugins, the sandbox, agents on other
// machines, the store of credentials (a credential is a variable of this process with its id in upper case).

class StageFailed extends RuntimeException {
    StageFailed(String message) { super(message) }
}

class Shell {
    File folder
    Map variables

    void run(String command) {
        println "+ ${command}"
        def builder = new ProcessBuilder('sh', '-ec', command).directory(folder).redirectErrorStream(true)
        variables.each { name, value -> builder.environment().put(name.toString(), value.toString()) }
        def process = builder.start()
        process.inputStream.eachLine { println it }
        def status = process.waitFor()
        if (status != 0) {
            throw new StageFailed("${command}: exit status ${status}")
        }
    }
}

class Run {
    File workspace
    File scratch
    String branch
    boolean approved
    Map variables = [:]
    List failed = []
    int agents = 0

    Shell shell(File folder, Map own) { new Shell(folder: folder, variables: variables + own) }

    void skip(String stage, String why) { println "[${stage}] skipped: ${why}" }

    // Copies the files that match the patterns of a stash, e.g. build/releases/** and build/state/*.json.
    void copy(String patterns, File from, File to) {
        def patternsOf = patterns.split(',').collect { from.toPath().fileSystem.getPathMatcher("glob:${it.trim()}") }
        from.eachFileRecurse { file ->
            def relative = from.toPath().relativize(file.toPath())
            if (file.isFile() && patternsOf.any { it.matches(relative) }) {
                def target = new File(to, relative.toString())
                target.parentFile.mkdirs()
                target.bytes = file.bytes
            }
        }
    }
}

// What every block of the file understands: a directive that is not a method of its class is refused.
abstract class Block {
    Run run

    def methodMissing(String name, arguments) {
        throw new IllegalArgumentException("the harness has no '${name}' in ${this.class.simpleName}")
    }

    void inside(Closure body, Object delegate) {
        body.delegate = delegate
        body.resolveStrategy = Closure.DELEGATE_FIRST
        body()
    }
}

class Options extends Block {
    def disableConcurrentBuilds() {}
    def buildDiscarder(rotator) {}
    def logRotator(Map given) {}
}

class Triggers extends Block {
    def cron(String when) {}
}

class Agent extends Block {
    String name = ''
    def label(String given) { name = given }
}

class Variables extends Block {
    Map found = [:]
    def getEnv() { [WORKSPACE: run.workspace.path] }
    String credentials(String id) { System.getenv(id.toUpperCase().replace('-', '_')) ?: "no credential ${id}" }
    void setProperty(String name, value) {
        if (name == 'run') { this.@run = value } else { found[name] = value.toString() }
    }
}

class When extends Block {
    List conditions = []
    boolean any = false
    def beforeAgent(boolean yes) {}
    def beforeInput(boolean yes) {}
    def triggeredBy(String cause) { conditions << false }
    def branch(String name) { conditions << (run.branch == name) }
    def buildingTag() { conditions << run.branch.startsWith('v') }
    def anyOf(Closure body) {
        def inner = new When(run: run)
        inside(body, inner)
        conditions << inner.conditions.any { it }
    }
}

class Input extends Block {
    String text = ''
    def message(String given) { text = given }
}

class Steps extends Block {
    Shell shell
    def sh(String command) { shell.run(command) }
    def stash(Map given) {
        def folder = new File(run.scratch, "stash-${given.name}")
        run.copy(given.includes, shell.folder, folder)
        println "stashed ${given.name}"
    }
    def unstash(String name) {
        def folder = new File(run.scratch, "stash-${name}")
        if (!folder.isDirectory()) { throw new StageFailed("no stash ${name}") }
        run.copy('**', folder, shell.folder)
    }
    def junit(Map given) { archive('JUnit', given.testResults) }
    def archiveArtifacts(Map given) { archive('artifacts', given.artifacts) }
    void archive(String what, String patterns) {
        def folder = new File(run.scratch, 'kept')
        run.copy(patterns, shell.folder, folder)
        println "kept ${what}: ${patterns}"
    }
}

class Post extends Block {
    Shell shell
    boolean failed
    def always(Closure body) { inside(body, new Steps(run: run, shell: shell)) }
    def failure(Closure body) { if (failed) { always(body) } }
}

class Stage extends Block {
    String name
    Closure steps, post
    Agent agent
    When condition
    Input question
    Map variables = [:]
    def agent(Closure body) { agent = new Agent(run: run); inside(body, agent) }
    def when(Closure body) { condition = new When(run: run); inside(body, condition) }
    def input(Closure body) { question = new Input(run: run); inside(body, question) }
    // As in Jenkins, `input 'Promote?'` and `input { message 'Promote?' }` are the same.
    def environment(Closure body) {
        def given = new Variables(run: run)
        inside(body, given)
        variables = given.found
    }
    def steps(Closure body) { steps = body }
    def post(Closure body) { post = body }

    void execute() {
        if (run.failed) { run.skip(name, "stage ${run.failed[0]} failed"); return }
        if (condition && !condition.conditions.every { it }) { run.skip(name, 'its condition does not hold'); return }
        if (question && !run.approved) { run.failed << name; println "[${name}] a person answered no"; return }
        println "[${name}]"
        def folder = run.workspace
        if (agent?.name) {  // a checkout of its own, as on another machine
            folder = new File(run.scratch, "agent-${run.agents++}-${agent.name}")
            def clone = ['git', 'clone', '--quiet', run.workspace.path, folder.path].execute()
            clone.waitForProcessOutput(System.out, System.out)
        }
        def shell = run.shell(folder, variables)
        def fault = null
        try {
            inside(steps, new Steps(run: run, shell: shell))
        } catch (StageFailed error) {
            fault = error
            run.failed << name
            println "[${name}] failed: ${error.message}"
        }
        if (post) { inside(post, new Post(run: run, shell: shell, failed: fault != null)) }
    }
}

class Stages extends Block {
    def stage(String name, Closure body) {
        def one = new Stage(run: run, name: name)
        inside(body, one)
        one.execute()
    }
}

class Pipeline extends Block {
    def agent(Closure body) { inside(body, new Agent(run: run)) }
    def options(Closure body) { inside(body, new Options(run: run)) }
    def triggers(Closure body) { inside(body, new Triggers(run: run)) }
    def environment(Closure body) {
        def given = new Variables(run: run)
        inside(body, given)
        run.variables += given.found
    }
    def stages(Closure body) { inside(body, new Stages(run: run)) }
    def post(Closure body) {
        inside(body, new Post(run: run, shell: run.shell(run.workspace, [:]), failed: !run.failed.isEmpty()))
    }
}

def file = new File(args[0]).absoluteFile
def scratch = File.createTempDir('jenkins-harness-', '')
def run = new Run(workspace: file.parentFile, scratch: scratch, branch: args.length > 1 ? args[1] : 'main',
                  approved: args.length < 3 || args[2] == 'yes')
def script = new GroovyShell().parse(file)
script.metaClass.pipeline = { Closure body ->
    def whole = new Pipeline(run: run)
    whole.inside(body, whole)
}
try {
    script.run()
} finally {
    scratch.deleteDir()
}
println run.failed ? "FAILURE in ${run.failed[0]}" : 'SUCCESS'
System.exit(run.failed ? 1 : 0)
