//! Real processes, supervised for real. Nothing is waited for longer than [`LIMIT`].

use std::path::Path;
use std::sync::Mutex;

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

struct Supervised {
    folder: tempfile::TempDir,
    wishes: Wishes,
    pid: watch::Receiver<Option<u32>>,
    said: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<Option<GaveUp>>,
}

fn spec(folder: &Path, script: &str, grace: Duration) -> ChildSpec {
    ChildSpec {
        name: "w0".to_owned(),
        program: "/bin/sh".into(),
        args: vec!["-c".to_owned(), script.to_owned()],
        log: folder.join("w0.log"),
        grace,
    }
}

fn supervised(script: &str, grace: Duration) -> Supervised {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec(folder.path(), script, grace);
    let wishes = Wishes { stop: CancellationToken::new(), kill: CancellationToken::new() };
    let (sender, pid) = watch::channel(None);
    let said = Arc::new(Mutex::new(Vec::new()));
    let announce: Announce = {
        let said = Arc::clone(&said);
        Arc::new(move |line: &str| said.lock().unwrap().push(line.to_owned()))
    };
    let task = tokio::spawn(supervise(spec, wishes.clone(), Kin::default(), announce, sender));
    Supervised { folder, wishes, pid, said, task }
}

impl Supervised {
    async fn next_life(&mut self, not: Option<u32>) -> u32 {
        let seen = self.pid.wait_for(|pid| pid.is_some() && *pid != not);
        let seen = tokio::time::timeout(LIMIT, seen).await.expect("a life begins in time").unwrap();
        seen.expect("there is a life")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("w0.log")).unwrap_or_default()
    }

    async fn ended(self) -> Option<GaveUp> {
        tokio::time::timeout(LIMIT, self.task).await.expect("it ends in time").unwrap()
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LIMIT, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a process is gone, or dead and only not yet buried by whoever adopted it.
fn is_dead(pid: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim().starts_with('Z')),
        Err(_) => true,
    }
}

fn raw(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap())
}

#[tokio::test]
async fn a_killed_child_is_started_again_with_the_same_command_and_said_so_in_one_line() {
    let mut it = supervised("echo alive; exec cat", Duration::from_secs(5));
    let first = it.next_life(None).await;
    until("the first life has spoken", || it.log() == "alive\n").await;
    kill(raw(first), Signal::SIGKILL).unwrap();
    let second = it.next_life(Some(first)).await;
    until("both lives have spoken", || it.log() == "alive\nalive\n").await;
    assert_eq!(*it.said.lock().unwrap(), ["w0 was killed (signal 9); it starts again in 0.1 s"]);
    it.wishes.stop.cancel();
    assert!(it.ended().await.is_none());
    assert!(is_dead(second));
}

#[tokio::test]
async fn a_child_that_exits_at_once_five_times_is_given_up_with_its_last_words() {
    let it = supervised("echo address in use >&2; exit 3", Duration::from_secs(5));
    let why = it.ended().await.expect("it is given up").to_string();
    assert!(
        why.starts_with(
            "w0 exited with status 3 each time it was started, and said: address in use"
        ),
        "{why}"
    );
}

#[tokio::test]
async fn a_missing_libtorch_is_given_up_at_once_with_a_way_out() {
    let complaint = "clade-worker: error while loading shared libraries: libtorch_cpu.so: cannot \
                     open shared object file: No such file or directory";
    let it = supervised(&format!("echo '{complaint}' >&2; exit 127"), Duration::from_secs(5));
    let said = Arc::clone(&it.said);
    let why = it.ended().await.expect("it is given up").to_string();
    assert!(why.contains("the library libtorch_cpu.so is not found; `make setup`"), "{why}");
    assert!(said.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_child_gets_its_grace_to_save_when_it_is_to_stop() {
    let script = "trap 'echo saved; exit 0' TERM; echo ready; while :; do read line; done";
    let mut it = supervised(script, LIMIT);
    let pid = it.next_life(None).await;
    until("the trap is set", || it.log() == "ready\n").await;
    it.wishes.stop.cancel();
    let log = it.folder.path().join("w0.log");
    tokio::time::timeout(LIMIT, it.task).await.expect("it ends in time").unwrap();
    assert_eq!(std::fs::read_to_string(log).unwrap(), "ready\nsaved\n");
    assert!(is_dead(pid));
}

/// A child that ignores SIGTERM, with a grandchild in its group that does so too.
const STUBBORN: &str = "trap '' TERM; sleep 1000 & echo $!; wait; while :; do read line; done";

#[tokio::test]
async fn a_child_that_outstays_its_grace_is_killed_with_its_whole_group() {
    let mut it = supervised(STUBBORN, Duration::from_millis(200));
    let pid = it.next_life(None).await;
    until("there is a grandchild", || it.log().ends_with('\n')).await;
    let grandchild = it.log().trim().parse().unwrap();
    assert!(!is_dead(grandchild));
    it.wishes.stop.cancel();
    let said = Arc::clone(&it.said);
    assert!(it.ended().await.is_none());
    until("the grandchild is dead", || is_dead(grandchild)).await;
    assert!(is_dead(pid));
    assert!(said.lock().unwrap()[0].contains("did not stop within"), "{said:?}");
}

#[tokio::test]
async fn a_second_wish_to_stop_waits_for_no_grace() {
    let mut it = supervised(STUBBORN, Duration::from_secs(3_600));
    let pid = it.next_life(None).await;
    until("there is a grandchild", || it.log().ends_with('\n')).await;
    let grandchild = it.log().trim().parse().unwrap();
    it.wishes.stop.cancel();
    it.wishes.kill.cancel();
    assert!(it.ended().await.is_none());
    until("the grandchild is dead", || is_dead(grandchild)).await;
    assert!(is_dead(pid));
}

#[tokio::test]
async fn a_child_has_a_process_group_of_its_own() {
    let mut it = supervised("exec cat", Duration::from_secs(5));
    let pid = it.next_life(None).await;
    let group = nix::unistd::getpgid(Some(raw(pid))).unwrap();
    assert_eq!(group, raw(pid));
    it.wishes.stop.cancel();
    assert!(it.ended().await.is_none());
}
