//! The commands against a coordinator, through the program as people use it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod stand_in;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use expect_test::{Expect, expect};
use stand_in::StandIn;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

const DOCUMENT: &str = include_str!("run.yaml");

struct Served {
    folder: tempfile::TempDir,
    url: String,
    _runtime: tokio::runtime::Runtime,
}

fn served() -> Served {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("run.yaml"), DOCUMENT).unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = StandIn::service(folder.path().to_owned());
    let fleet = stand_in::fleet::Fleet::service(folder.path().to_owned());
    let server = tonic::transport::Server::builder().add_service(service).add_service(fleet);
    runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    Served { folder, url, _runtime: runtime }
}

fn command(folder: &Path, url: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clade"));
    command.env_remove("CLADE_COORDINATOR").args(["--coordinator", url]).args(args);
    command.current_dir(folder);
    command
}

fn clade(folder: &Path, url: &str, args: &[&str]) -> Output {
    command(folder, url, args).output().unwrap()
}

impl Served {
    fn command(&self, args: &[&str]) -> Command {
        command(self.folder.path(), &self.url, args)
    }

    fn clade(&self, args: &[&str]) -> Output {
        clade(self.folder.path(), &self.url, args)
    }

    fn check(&self, args: &[&str], expected: Expect) {
        expected.assert_eq(&told(&self.clade(args)));
    }

    fn mark(&self, name: &str) {
        fs::write(self.folder.path().join(name), "").unwrap();
    }
}

/// Exit code and all that was written; no control code ever, since there is no terminal.
fn told(output: &Output) -> String {
    let Output { status, stdout, stderr } = output;
    let text = format!(
        "exit {}\n{}{}",
        status.code().unwrap(),
        String::from_utf8_lossy(stdout),
        String::from_utf8_lossy(stderr)
    );
    assert!(!text.contains('\x1b'), "{text:?}");
    text
}

#[test]
fn without_a_coordinator_the_error_says_what_to_do() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = clade(Path::new("/"), &format!("http://{port}"), &["status"]);
    let text = told(&output).replace(&port.to_string(), "HOST:PORT");
    expect![[r#"
        exit 3
        clade: no coordinator answers at http://HOST:PORT: start one with `clade up`, or name another with --coordinator
    "#]].assert_eq(&text);
    let output = clade(Path::new("/"), "ftp://there", &["status"]);
    expect![[r#"
        exit 2
        clade: `ftp://there` is no coordinator's address: only https:// and http:// are spoken; write --coordinator https://HOST:PORT
    "#]].assert_eq(&told(&output));
}

#[test]
fn a_wrong_document_is_refused_before_anything_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let text = DOCUMENT.replace("preset: tiny", "presett: tiny");
    fs::write(folder.path().join("run.yaml"), text).unwrap();
    for command in ["up", "apply"] {
        let output = clade(folder.path(), "http://127.0.0.1:1", &[command, "-f", "run.yaml"]);
        assert_eq!(
            told(&output),
            "exit 2\nclade: run.yaml: line 11: unknown key `presett`; did you mean `preset`?\n"
        );
    }
    assert!(!folder.path().join("clade-data").exists());
    let output = clade(folder.path(), "http://127.0.0.1:1", &["up", "-f", "rum.yaml"]);
    expect![[r#"
        exit 2
        clade: cannot read the run document rum.yaml: No such file or directory (os error 2)
    "#]]
    .assert_eq(&told(&output));
}

#[test]
fn status_tells_in_a_table_of_one_run_or_all() {
    let served = served();
    served.mark("failed");
    served.check(
        &["status"],
        expect![[r#"
        exit 0
        clipart  failed  elapsed 0s
          why: bad data: 9 of 10 pairs are unusable
        NAME  PHASE  PROGRESS       RATE  ETA  LOSS   WHY
        seed  done   288/288 steps  -     -    3.250

        no workers: nothing can run until one joins
    "#]],
    );
    served.check(
        &["status", "clipard"],
        expect![[r#"
        exit 1
        clade: no run `clipard`; `clade status` lists the runs
    "#]],
    );
    served.check(
        &["status", "--watch", "-o", "json"],
        expect![[r#"
        exit 2
        clade: --watch draws a table; ask for JSON once, without --watch
    "#]],
    );
    let json = served.clade(&["status", "clipart", "-o", "json"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["runs"][0]["parts"][0]["total"], 288);
}

#[test]
fn jobs_are_listed_over_all_pages_by_stage_and_phase() {
    let served = served();
    // The run is on the second page of the status.
    served.mark("paged");
    served.check(
        &["jobs"],
        expect![[r#"
        exit 0
        JOB      PHASE    TRY  RESTARTS  WHY
        embed.0  running  1    0         on w1:0
        embed.1  failed   1    0         bad data: no pairs
        embed.2  running  1    0         on w1:0
    "#]],
    );
    let json = served.clade(&["jobs", "clipart", "--phase", "failed", "-o", "json"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(json["jobs"][0]["work"], "embed.1");
    served.check(
        &["jobs", "clipart", "--stage", "index"],
        expect![[r#"
        exit 0
        no such jobs
    "#]],
    );
    for wrong in [["--stage", "embedd"], ["--phase", "lost"]] {
        let output = served.clade(&[&["jobs"][..], &wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    }
}

#[test]
fn applying_outlasts_a_listing_longer_than_other_requests_may_take_and_says_so() {
    let served = served();
    served.mark("slow");
    served.check(&["apply", "-f", "run.yaml"], expect![[r#"
        exit 0
        the coordinator looks for the run's input tars and tries its store; for large buckets that takes a minute or two
        run clipart created
        see it with `clade status --watch`
    "#]]);
}

#[test]
fn a_node_is_cordoned_drained_and_taken_up_again() {
    let served = served();
    served.check(
        &["workers"],
        expect![[r#"
        exit 0
        NODE  WORKER   PHASE     BUSY  DOMAIN  DEVICES  WHY
        n0    n0-0a1b  attached  0/2   rack-7
        n1    n1-0a1b  attached  2/2   rack-7
    "#]],
    );
    served.check(&["cordon", "n1", "--reason", "fan is loud"], expect![[r#"
        exit 0
        node n1 is cordoned: it gets nothing new, and what runs there goes on; `clade drain n1` sends that away too, `clade uncordon n1` takes the node up again
    "#]]);
    served.check(
        &["workers"],
        expect![[r#"
        exit 0
        NODE  WORKER   PHASE     BUSY  DOMAIN  DEVICES  WHY
        n0    n0-0a1b  attached  0/2   rack-7
        n1    n1-0a1b  attached  2/2   rack-7           cordoned: fan is loud
    "#]],
    );
    served.check(
        &["drain", "n1", "--reason", "new memory", "--wait"],
        expect![[r#"
        exit 0
        node n1 is draining: what runs there saves, stops and goes on elsewhere
        ranks that still run on node n1: 2
        ranks that still run on node n1: 1
        nothing runs on node n1 any more
    "#]],
    );
    served.check(
        &["uncordon", "n1"],
        expect![[r#"
        exit 0
        node n1 takes work again
    "#]],
    );
    let json = served.clade(&["workers", "-o", "json"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["workers"][1]["node"], "n1");
    assert_eq!(json["workers"][1]["cordoned"], false);
    served.check(
        &["drain", "n7", "--reason", "typo"],
        expect![[r#"
        exit 1
        clade: no node `n7`; `clade workers` lists the nodes
    "#]],
    );
    let unreasoned = served.clade(&["cordon", "n1", "--reason", ""]);
    assert_eq!(unreasoned.status.code(), Some(2));
}

#[test]
fn logs_and_report_find_the_only_run_by_themselves() {
    let served = served();
    served.check(
        &["logs", "expert-2", "--tail", "4k"],
        expect![[r#"
        exit 0
        ==> models/expert-2/gang-1/logs/rank-0.log <==
        4096 bytes at most
    "#]],
    );
    served.check(
        &["logs", "clipart", "seed"],
        expect![[r#"
        exit 0
        ==> models/seed/gang-1/logs/rank-0.log <==
        65536 bytes at most
    "#]],
    );
    served.check(
        &["logs", "nobody"],
        expect![[r#"
        exit 2
        clade: `nobody` is neither a run (clipart) nor a work such as expert-2, embed or embed.3
    "#]],
    );
    served.check(
        &["report"],
        expect![[r#"
        exit 1
        clade: run `clipart` has not finished yet
    "#]],
    );
    served.mark("finished");
    served.check(
        &["report"],
        expect![[r#"
        exit 0
        # Report of clipart

        report: /store/report.md
        bundle: /store/bundle/ab12
    "#]],
    );
    served.check(
        &["report", "clipart", "--json"],
        expect![[r#"
        exit 0
        {"run": "clipart"}
    "#]],
    );
}

#[test]
fn apply_waits_for_the_end_and_exits_with_the_runs_status() {
    let served = served();
    served.mark("finished");
    served.check(
        &["apply", "-f", "run.yaml", "--wait"],
        expect![[r#"
        exit 0
        # Report of clipart

        report: /store/report.md
        bundle: /store/bundle/ab12
        run clipart is under way or finished already; nothing changed
        clipart  finished  elapsed 0s
        [    0s] seed: done, 288/288 steps, loss 3.250
    "#]],
    );
    fs::remove_file(served.folder.path().join("finished")).unwrap();
    served.check(
        &["apply", "-f", "run.yaml"],
        expect![[r#"
        exit 0
        run clipart created
        see it with `clade status --watch`
    "#]],
    );
    served.mark("failed");
    served.check(
        &["apply", "-f", "run.yaml", "--wait"],
        expect![[r#"
        exit 1
        run clipart is under way or finished already; nothing changed
        clipart  failed  elapsed 0s
        [    0s] seed: done, 288/288 steps, loss 3.250
        run clipart failed: bad data: 9 of 10 pairs are unusable
        `clade logs` shows what its ranks wrote; applying it again goes on from what is saved
    "#]],
    );
    fs::remove_file(served.folder.path().join("failed")).unwrap();
    served.check(&["cancel", "clipart"], expect![[r#"
        exit 0
        run clipart is stopping: its models save their checkpoints first; `clade status clipart` shows when it is cancelled
    "#]]);
    let output = served.clade(&["apply", "-f", "run.yaml", "--wait"]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
}

#[test]
fn waiting_outlasts_a_coordinator_that_restarts() {
    let served = served();
    served.mark("away");
    let errors = served.folder.path().join("stderr");
    let mut child = served
        .command(&["apply", "-f", "run.yaml", "--wait"])
        .stderr(fs::File::create(&errors).unwrap())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let began = std::time::Instant::now();
    while !fs::read_to_string(&errors).unwrap().contains("coordinator unreachable, retrying") {
        assert!(began.elapsed().as_secs() < 30, "it never said so");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    served.mark("finished");
    fs::remove_file(served.folder.path().join("away")).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let text = fs::read_to_string(&errors).unwrap();
    assert!(text.contains("coordinator answers again after "), "{text}");
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let served = served();
    let mut child = Command::new(env!("CARGO_BIN_EXE_clade"))
        .args(["--coordinator", &served.url, "status"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
}

#[test]
fn a_token_is_printed_once_and_only_its_digest_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let new = |args: &[&str]| {
        let args = [&["token", "new"][..], args].concat();
        clade(folder.path(), "http://127.0.0.1:1", &args)
    };
    let alice = ["--name", "alice", "--role", "operator", "--expires", "90d", "--file", "t.yaml"];
    let output = new(&alice);
    let token = String::from_utf8(output.stdout).unwrap();
    assert_eq!((token.len(), token.starts_with("clade_")), (71, true), "{token}");
    let file = fs::read_to_string(folder.path().join("t.yaml")).unwrap();
    assert!(!file.contains(token.trim()) && file.starts_with("- name: \"alice\""), "{file}");
    let output = new(&["--name", "*", "--role", "worker", "--expires", "never"]);
    let entry = String::from_utf8(output.stderr).unwrap();
    assert!(entry.contains("- name: \"*\"\n  role: worker\n  sha256: "), "{entry}");
    for (wrong, says) in [
        (["--name", "a b", "--role", "viewer", "--expires", "1d"], "--name: `a b` cannot name"),
        (["--name", "*", "--role", "admin", "--expires", "1d"], "--name: `*` cannot name"),
        (["--name", "a", "--role", "king", "--expires", "1d"], "`king` is no role"),
        (["--name", "a", "--role", "viewer", "--expires", "soon"], "--expires: "),
    ] {
        let text = told(&new(&wrong));
        assert!(text.starts_with("exit 2") && text.contains(says), "{text}");
    }
}

#[test]
fn trial_certificates_are_for_their_owner_alone_and_never_overwritten() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let args = ["certs", "new", "--out", "certs", "--host", "localhost", "--host", "127.0.0.1"];
    let output = clade(folder.path(), "http://127.0.0.1:1", &args);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let files = String::from_utf8(output.stdout).unwrap();
    assert_eq!(files.lines().count(), 12, "{files}");
    for file in files.lines() {
        let mode = fs::metadata(folder.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let before = fs::read(folder.path().join("certs/ca.pem")).unwrap();
    let text = told(&clade(folder.path(), "http://127.0.0.1:1", &args));
    assert!(text.starts_with("exit 1\nclade: cannot write certs/ca.pem: File exists"), "{text}");
    assert_eq!(fs::read(folder.path().join("certs/ca.pem")).unwrap(), before);
}
