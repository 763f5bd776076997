//! What the log is like: for people, for machines, on a terminal, and while the first sync takes its time.

use std::fs;
use std::io::{ErrorKind, Read as _};

use rustix::fs::{Mode, OFlags, mkfifoat, open};
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::access::Access;
use crate::harness::cluster::{ApiServer, free_address};
use crate::harness::endpoints::Endpoints;
use crate::harness::link::{Link, State};
use crate::harness::namespace::Namespace;
use crate::harness::object::config_map;
use crate::harness::sidecar::{Launch, Sidecar};
use crate::harness::wait::{PATIENCE, run, until};
use crate::harness::workspace::{Workspace, write};

/// Makes green what follows (ECMA-48: SGR), as the level of a line is.
const GREEN: &str = "\u{1b}[32m";

/// Clears the line that the terminal is at.
const CLEAR: &str = "\r\u{1b}[K";

/// The lines for machines that tell of this.
fn events(sidecar: &Sidecar<'_>, event: &str) -> Vec<Value> {
    let lines = sidecar.lines_with(&[]);
    let lines = lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    lines.filter(|line: &Value| line["event"] == event).collect()
}

/// The line without what differs from run to run.
fn stable(mut line: Value) -> Value {
    let fields = line.as_object_mut().expect("an object");
    assert!(fields.remove("timestamp").is_some_and(|time| time.is_string()));
    assert!(fields.remove("duration_ms").is_none_or(|duration| duration.is_u64()));
    line
}

#[test]
fn for_machines_each_change_and_each_bump_is_a_line_with_fields() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let winner = namespace.create(&config_map("routes", [("a", "1")])).await;
        namespace.wait_to_be_younger_than(&winner).await;
        let launch = Launch::within(&namespace, &workspace).args(["--log-format", "json", "--exec", "true"]);
        let sidecar = launch.start();
        sidecar.says("ran `true`").await;
        let [in_sync] = &events(&sidecar, "in_sync")[..] else { panic!("one line") };
        assert!(in_sync["duration_ms"].is_u64(), "{in_sync}");
        assert_eq!((&in_sync["files"], &in_sync["objects"], &in_sync["held"]), (&json!(1), &json!(1), &json!(0)));
        assert_eq!(events(&sidecar, "written"), [Value::Null; 0], "what the first sync writes is no news");
        let dir = workspace.dir();
        namespace.replace(&config_map("routes", [("a", "2"), ("b", "SECRET-CONTENT")])).await;
        sidecar.says_times("ran `true`", 2).await;
        let ns = &namespace.name;
        let about = |event: &str, path: &str, message: String| {
            json!({
                "level": "INFO", "event": event, "path": path, "kind": "ConfigMap", "namespace": ns, "name": "routes",
                "message": message,
            })
        };
        let written: Vec<_> = events(&sidecar, "written").into_iter().map(stable).collect();
        let expected = ["a", "b"].map(|path| about("written", path, format!("wrote {path} of ConfigMap {ns}/routes")));
        assert_eq!(written, expected);
        let bumped = events(&sidecar, "bumped").pop().expect("a line");
        assert!(bumped["duration_ms"].is_u64(), "{bumped}");
        let message = "ran `true`";
        let expected = json!({"level": "INFO", "event": "bumped", "bump": "exec", "files": 2, "message": message});
        assert_eq!(stable(bumped), expected);

        namespace.create(&config_map("younger", [("a", "3")])).await;
        sidecar.says("conflict").await;
        let conflict = events(&sidecar, "conflict").pop().expect("a line");
        assert_eq!((&conflict["path"], &conflict["name"]), (&json!("a"), &json!("younger")));
        assert_eq!(conflict["winner"], format!("ConfigMap {ns}/routes"));
        namespace.delete(&winner).await;
        sidecar.holds([("a", "3")]).await;
        let removed = events(&sidecar, "removed").into_iter().map(stable).collect::<Vec<_>>();
        assert_eq!(removed, [about("removed", "b", format!("removed b of ConfigMap {ns}/routes"))]);
        assert_eq!(sidecar.lines_with(&["SECRET-CONTENT"]), [""; 0]);
        assert!(dir.is_dir());
        sidecar.terminate().await;
    });
}

#[test]
fn for_people_a_line_has_a_time_a_level_and_a_sentence_and_no_fields() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let sidecar = Launch::within(&namespace, &workspace).args(["--exec", "true"]).start();
        sidecar.in_sync().await;
        namespace.create(&config_map("routes", [("a", "1")])).await;
        sidecar.says("ran `true`").await;
        let sentence = |line: &String| line.split_once("  INFO ").expect("a time and a level").1.to_owned();
        let expected = [
            format!("in sync: {} holds 0 files of 0 objects", workspace.dir().display()),
            format!("wrote a of ConfigMap {}/routes", namespace.name),
            "ran `true`".to_owned(),
        ];
        assert_eq!(sidecar.lines_with(&[]).iter().map(sentence).collect::<Vec<_>>(), expected);
        sidecar.terminate().await;
    });
}

#[test]
fn a_terminal_has_colours_unless_somebody_objects() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let launch = Launch::within(&namespace, &workspace);
        for (launch, is_coloured) in [
            (launch.clone().on_terminal(), true),
            (launch.clone().on_terminal().environment("NO_COLOR", "1"), false),
            (launch.clone().on_terminal().environment("NO_COLOR", ""), true),
            (launch.clone().on_terminal().args(["--log-format", "json"]), false),
            (launch.clone(), false),
        ] {
            let sidecar = launch.start();
            let line = sidecar.says("in sync").await;
            assert_eq!(line.contains(GREEN), is_coloured, "{line:?}");
            sidecar.terminate().await;
        }
    });
}

/// Starts one whose server does not answer until it is asked to.
async fn waiting<'w>(
    namespace: &Namespace,
    workspace: &'w Workspace,
    change: impl FnOnce(Launch<'w>) -> Launch<'w>,
) -> (Link, Sidecar<'w>) {
    let admin = ApiServer::shared().admin_access();
    let link = Link::to(admin.address, State::Frozen).await;
    let access = Access { address: link.address, ..admin };
    let launch = Launch::new(workspace).access(&access).args(["--namespace", &namespace.name]);
    (link, change(launch).start())
}

#[test]
fn on_a_terminal_a_long_first_sync_is_one_line_that_is_gone_when_it_is_over() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let (link, sidecar) = waiting(&namespace, &workspace, Launch::on_terminal).await;
        let drawn = format!("{CLEAR}syncing: 0 objects read, 0 files written, ");
        let line = sidecar.says(&drawn).await;
        assert!(line.starts_with(CLEAR), "nothing stands before it: {line:?}");
        sidecar
            .until("a line that is drawn again in its place", || {
                let line = sidecar.lines_with(&[&drawn]).pop().unwrap_or_default();
                if line.matches(&drawn).count() >= 2 { Ok(()) } else { Err(line) }
            })
            .await;
        link.set(State::Up);
        let line = sidecar.says("in sync").await;
        let (_, left) = line.rsplit_once(CLEAR).expect("the line was cleared");
        assert!(left.contains("in sync") && !left.contains("syncing"), "{line:?}");
        namespace.replace(&config_map("routes", [("a", "2")])).await;
        let line = sidecar.says("wrote a of").await;
        assert!(!line.contains(CLEAR), "it does not come back: {line:?}");
        sidecar.terminate().await;
    });
}

#[test]
fn elsewhere_a_long_first_sync_is_a_line_now_and_then_and_none_for_who_wants_no_news() {
    run(async {
        let (namespace, workspaces) = (Namespace::new().await, [(); 3].map(|()| Workspace::new()));
        let [log, machine, quiet] = &workspaces;
        let (link, sidecar) = waiting(&namespace, log, |launch| launch).await;
        let (_machine_link, machine) =
            waiting(&namespace, machine, |launch| launch.on_terminal().args(["--log-format", "json"])).await;
        let (_quiet_link, quiet) =
            waiting(&namespace, quiet, |launch| launch.on_terminal().args(["--log-level", "warn"])).await;
        sidecar.says("INFO syncing: 0 objects read, 0 files written, ").await;
        machine.says("\"event\":\"syncing\"").await;
        let line = &events(&machine, "syncing")[0];
        assert_eq!(
            (&line["objects"], &line["files"], line["seconds"].as_u64() >= Some(3)),
            (&json!(0), &json!(0), true)
        );
        link.set(State::Up);
        sidecar.in_sync().await;
        // They come after 3 s, 9 s, 21 s.
        assert!(sidecar.lines_with(&["syncing"]).len() <= 2);
        assert_eq!(quiet.lines_with(&["syncing"]), [""; 0]);
    });
}

/// A pipe for the log that is read when the test wants.
struct Unread(fs::File);

impl Unread {
    /// Gives the pipe to the sidecar for its stderr.
    fn log_of(launch: Launch<'_>) -> (Self, Launch<'_>) {
        let path = launch.workspace().beside("pipe");
        mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR).expect("a pipe");
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let reader = open(&path, flags, Mode::empty()).expect("its end");
        fcntl_setpipe_size(&reader, 4096).expect("a small pipe");
        (Self(reader.into()), launch.prelude(format!("exec 2>'{}'", path.display())))
    }

    /// Reads until a line has the text.
    async fn says(&mut self, text: &str) -> String {
        let mut log = Vec::new();
        until(PATIENCE, text, async || {
            match self.0.read_to_end(&mut log) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            let log = String::from_utf8_lossy(&log);
            log.lines().find(|line| line.contains(text)).map(str::to_owned).ok_or_else(|| log.into_owned())
        })
        .await
    }
}

/// Writes the manifest of one ConfigMap.
fn manifest(workspace: &Workspace, value: &str) {
    let text = format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: a, labels: {{app: web}}}}, data: {{k: '{value}'}}}}\n"
    );
    write(&workspace.beside("manifests/a.yaml"), text);
}

/// Each run of its hook logs more than waits for the reader.
fn talkative(workspace: &Workspace) -> Launch<'_> {
    let hook = "sh -c \"yes $(printf %0900d 1) | head -n 100; cat '$CONFIG_BUMP_DIR/k' >ran\"";
    let cd = format!("cd '{}'", workspace.beside("").display());
    let hook = hook.replace("'$CONFIG_BUMP_DIR/k'", "out/k");
    Launch::new(workspace).arg("--manifests").arg(workspace.beside("manifests")).args(["--exec", &hook]).prelude(cd)
}

/// Waits until a file beside DIR has this text.
async fn has(workspace: &Workspace, name: &str, expected: &str) {
    until(PATIENCE, &format!("{expected:?} in {name}"), async || {
        let text = fs::read_to_string(workspace.beside(name)).unwrap_or_default();
        if text == expected { Ok(()) } else { Err(text) }
    })
    .await;
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    run(async {
        let (workspace, address) = (Workspace::new(), free_address());
        manifest(&workspace, "0");
        let (mut log, launch) = Unread::log_of(talkative(&workspace).args(["--listen", &address.to_string()]));
        let sidecar = launch.start();
        for value in ["1", "2", "3"] {
            manifest(&workspace, value);
            has(&workspace, "ran", value).await;
        }
        assert_eq!(Endpoints { address }.probe("/readyz").await.0, 200);
        let line = log.says(" log lines: the reader of stderr did not read").await;
        let dropped = line.split_once("dropped ").and_then(|(_, rest)| rest.split(' ').next()?.parse::<usize>().ok());
        assert!(dropped.is_some_and(|lines| (100..400).contains(&lines)), "{line}");
        manifest(&workspace, "4");
        log.says("wrote k of ConfigMap").await;
        sidecar.terminate().await;
    });
}

#[test]
fn with_an_unread_log_the_command_gets_its_signal() {
    run(async {
        let workspace = Workspace::new();
        manifest(&workspace, "1");
        let command = "trap 'echo TERM >got; exit 3' TERM; echo started >started; while :; do sleep 0.05; done";
        let (_log, launch) = Unread::log_of(talkative(&workspace).args(["--", "sh", "-c", command]));
        let sidecar = launch.start();
        has(&workspace, "started", "started\n").await;
        manifest(&workspace, "2");
        has(&workspace, "ran", "2").await;
        sidecar.signal(Signal::TERM);
        let ended = sidecar.ended(PATIENCE).await;
        has(&workspace, "got", "TERM\n").await;
        assert_eq!(ended.code, Some(3));
    });
}
