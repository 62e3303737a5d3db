//! `clade up` with real processes: a stand-in coordinator, and workers that only hold on.
//!
//! Everything a test starts ends with it: children leave when their standard input closes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod stand_in;

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stand_in::StandIn;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

const LIMIT: Duration = Duration::from_secs(30);
/// Where a stand-in keeps its files; its presence makes the first test below a coordinator.
const FOLDER: &str = "CLADE_TEST_FOLDER";

/// A folder with `clade` and its programs. Written once, before anything in it runs.
static PROGRAMS: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(env!("CARGO_BIN_EXE_clade"), folder.path().join("clade")).unwrap();
    let me = std::env::current_exe().unwrap();
    let coordinator = format!(
        "#!/bin/sh\nCLADE_TEST_LISTEN=$2 exec {} --exact --nocapture plays_a_coordinator_if_asked_to\n",
        me.display()
    );
    // A rank that outlives its agent by far, if the folder says so.
    let rank = format!("setsid sleep 1000 & echo $! > \"${FOLDER}/rank.pid\"");
    let worker = format!(
        "#!/bin/sh\n[ -e \"${FOLDER}/hardy\" ] && {{ {rank}; }}\n\
         echo $$ > \"${FOLDER}/$5.pid\"\nexec cat\n"
    );
    for (name, script) in [("clade-coordinator", coordinator), ("clade-worker", worker)] {
        let path = folder.path().join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
});

/// Not a test but the stand-in's `main`; does nothing in an ordinary run.
#[test]
fn plays_a_coordinator_if_asked_to() {
    let Ok(listen) = std::env::var("CLADE_TEST_LISTEN") else { return };
    let folder = PathBuf::from(std::env::var(FOLDER).unwrap());
    fs::write(folder.join("coordinator.pid"), std::process::id().to_string()).unwrap();
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await.unwrap();
        tonic::transport::Server::builder()
            .add_service(stand_in::fleet::Fleet::service(folder.clone()))
            .add_service(StandIn::service(folder))
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .unwrap();
    });
}

struct Up {
    folder: tempfile::TempDir,
    child: Option<Child>,
}

/// What an ended `clade up` has left behind.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Up {
    fn start(marks: &[&str], args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("run.yaml"), include_str!("run.yaml")).unwrap();
        let mut up = Self { folder, child: None };
        marks.iter().for_each(|name| up.mark(name));
        up.child = Some(up.command(args).spawn().unwrap());
        up
    }

    fn command(&self, args: &[&str]) -> Command {
        let file = |name: &str| fs::File::create(self.folder.path().join(name)).unwrap();
        let mut command = Command::new(PROGRAMS.path().join("clade"));
        command
            .arg("up")
            .args(["--listen", "127.0.0.1:0"])
            .args(args)
            .current_dir(self.folder.path())
            .env(FOLDER, self.folder.path())
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"));
        command
    }

    fn mark(&self, name: &str) {
        fs::write(self.folder.path().join(name), "").unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    /// Waits for the process id that a child wrote, other than `not`.
    fn pid(&self, name: &str, not: Option<i32>) -> i32 {
        let pid = || self.read(&format!("{name}.pid")).trim().parse().ok();
        until(name, || pid().is_some_and(|pid| Some(pid) != not));
        pid().unwrap()
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().unwrap().id();
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    }

    fn end(mut self) -> Ended {
        let mut child = self.child.take().unwrap();
        let mut code = None;
        until("clade up has ended", || {
            child.try_wait().unwrap().is_some_and(|status| {
                code = status.code();
                true
            })
        });
        let (stdout, stderr) = (self.read("stdout"), self.read("stderr"));
        assert!(!(stdout.clone() + &stderr).contains('\x1b'), "control codes without a terminal");
        Ended { code, stdout, stderr }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LIMIT, "waited too long: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_dead(pid: i32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim().starts_with('Z')),
        Err(_) => true,
    }
}

#[test]
fn up_with_a_file_runs_to_the_end_restarts_a_killed_worker_and_leaves_nothing_running() {
    let up = Up::start(&[], &["-f", "run.yaml"]);
    let first = up.pid("w0", None);
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    let second = up.pid("w0", Some(first));
    let all = [second, up.pid("w1", None), up.pid("coordinator", None)];
    assert!(all.iter().all(|pid| !is_dead(*pid)));
    up.mark("finished");
    let Ended { code, stdout, stderr } = up.end();
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(
        stdout,
        "# Report of clipart\n\nreport: /store/report.md\nbundle: /store/bundle/ab12\n"
    );
    assert!(stderr.contains("w0 was killed (signal 9); it starts again in 0.1 s\n"), "{stderr}");
    assert!(
        stderr.contains("seed: running, 144/288 steps, 3.2/s, eta 45s, loss 3.250"),
        "{stderr}"
    );
    assert!(stderr.lines().last().unwrap().starts_with("CPU time 0.0 min on "), "{stderr}");
    assert!(all.iter().all(|pid| is_dead(*pid)));
}

#[test]
fn a_killed_coordinator_comes_back_on_the_same_port_and_the_run_goes_on() {
    let up = Up::start(&[], &["-f", "run.yaml", "--workers", "1"]);
    up.pid("w0", None);
    let first = up.pid("coordinator", None);
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    up.pid("coordinator", Some(first));
    up.mark("finished");
    let Ended { code, stderr, .. } = up.end();
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("coordinator was killed (signal 9)"), "{stderr}");
}

#[test]
fn a_finished_run_is_reported_at_once_and_starts_no_worker() {
    let up = Up::start(&["finished"], &["-f", "run.yaml"]);
    let worker = up.folder.path().join("w0.pid");
    let data = up.folder.path().join("clade-data/logs/w0.log");
    let started = move || worker.exists() || data.exists();
    let Ended { code, stdout, stderr } = up.end();
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.starts_with("# Report of clipart\n"), "{stdout}");
    assert!(stderr.contains("run clipart has finished before; --fresh starts it over"), "{stderr}");
    assert!(!started());
}

#[test]
fn a_failed_run_is_the_exit_code_and_its_reason_is_told() {
    let up = Up::start(&[], &["-f", "run.yaml"]);
    up.pid("w1", None);
    up.mark("failed");
    let Ended { code, stderr, .. } = up.end();
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("run clipart failed: bad data: 9 of 10 pairs are unusable"),
        "{stderr}"
    );
}

#[test]
fn ctrl_c_stops_everything_and_says_how_to_go_on() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let up = Up::start(&[], &["-f", "run.yaml"]);
        let all = ["w0", "w1", "coordinator"].map(|name| up.pid(name, None));
        up.signal(signal);
        let Ended { code, stderr, .. } = up.end();
        assert_eq!(code, Some(130), "{stderr}");
        let stopping = "stopping: models save their checkpoints… (Ctrl-C again to stop at once)\n";
        assert!(stderr.contains(stopping), "{stderr}");
        let go_on = "/clade up --listen 127.0.0.1:0 -f run.yaml";
        assert!(stderr.lines().last().unwrap().ends_with(go_on), "{stderr}");
        assert!(all.iter().all(|pid| is_dead(*pid)));
    }
}

#[test]
fn a_rank_that_outlives_its_agent_does_not_outlive_the_whole() {
    let up = Up::start(&["hardy"], &["--workers", "1"]);
    let first = up.pid("w0", None);
    let orphan = up.pid("rank", None);
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    up.pid("w0", Some(first));
    let second = up.pid("rank", Some(orphan));
    assert!(!is_dead(orphan) && !is_dead(second));
    up.signal(Signal::SIGINT);
    let Ended { code, stderr, .. } = up.end();
    assert_eq!(code, Some(130), "{stderr}");
    assert!(is_dead(orphan) && is_dead(second));
}

#[test]
fn children_do_not_outlive_a_supervisor_that_was_killed() {
    let mut up = Up::start(&[], &[]);
    let all = ["w0", "w1", "coordinator"].map(|name| up.pid(name, None));
    up.signal(Signal::SIGKILL);
    up.child.take().unwrap().wait().unwrap();
    until("all children have noticed", || all.iter().all(|pid| is_dead(*pid)));
}

#[test]
fn two_of_them_never_share_a_data_folder() {
    let up = Up::start(&[], &[]);
    up.pid("w0", None);
    let second = Command::new(PROGRAMS.path().join("clade"))
        .args(["up", "--listen", "127.0.0.1:0"])
        .current_dir(up.folder.path())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{error}");
    let holder = format!("clade: another `clade up` (pid {}", up.child.as_ref().unwrap().id());
    assert!(error.starts_with(&holder), "{error}");
}

#[test]
fn a_port_in_use_and_a_missing_program_are_one_sentence_each() {
    let folder = tempfile::tempdir().unwrap();
    let up = |clade: &Path, listen: &str| {
        let output = Command::new(clade)
            .args(["up", "--listen", listen])
            .env("PATH", "/nowhere")
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = up(&PROGRAMS.path().join("clade"), &address);
    assert!(
        error.starts_with(&format!("clade: port in use: another program listens on {address}"))
    );
    assert_eq!(error.lines().count(), 1);
    let alone = folder.path().join("alone");
    fs::create_dir(&alone).unwrap();
    // A hard link is not enough: the program must lie where nothing else does.
    let clade = alone.join("clade");
    fs::hard_link(PROGRAMS.path().join("clade"), &clade).unwrap();
    let error = up(&clade, "127.0.0.1:0");
    assert!(error.starts_with("clade: no program `clade-coordinator` beside "), "{error}");
}
