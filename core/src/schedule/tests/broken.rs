//! The invariants themselves: each notices what breaks it, and says nothing of what does not.
//!
//! A sound state is held against effects that claim something else went before it, or the state itself
//! is spoilt.

use super::ends::seated;
use super::*;

/// Effects that claim that `work` was otherwise.
pub(super) fn was(script: &Script, work: &str, change: impl FnOnce(&mut Work)) -> Effects {
    let mut then = script.work(work).clone();
    change(&mut then);
    let key = ("clipart".parse().unwrap(), work.parse().unwrap());
    let before = Before { works: [(key, then)].into(), ..Before::default() };
    Effects { before, ..Effects::default() }
}

pub(super) fn waited(work: &mut Work) {
    work.phase = Phase::Waiting;
}

/// Spoils a work.
pub(super) fn spoilt(script: &mut Script, work: &str, change: impl FnOnce(&mut Work)) {
    let run = script.state.runs.values_mut().next().unwrap();
    change(run.works.get_mut(&work.parse().unwrap()).unwrap());
}

pub(super) fn worker_of(script: &mut Script, id: &str, change: impl FnOnce(&mut Worker)) {
    change(script.state.workers.get_mut(&WorkerId(id.into())).unwrap());
}

pub(super) fn exited(fence: &str) -> Event {
    let (worker, fence) = (WorkerId("w1".into()), fence_of(fence));
    Event::RankExited { worker, fence, rank: 0, outcome: done() }
}

pub(super) fn left(worker: &str) -> Event {
    Event::WorkerLeft { worker: WorkerId(worker.into()) }
}

/// Turns a running gang into one that was told to stop.
fn stopping(work: &mut Work, cause: Stop) {
    let gang = std::mem::take(work.gang_mut().unwrap());
    work.phase = Phase::Stopping { gang, cause };
}

fn ran(work: &mut Work) {
    let gang = std::mem::take(work.gang_mut().unwrap());
    work.phase = Phase::Running(gang);
}

#[track_caller]
pub(super) fn holds(script: &Script, event: &Event, effects: &Effects, broken: Option<&str>) {
    let seen = violations(&About::of(event), effects, &script.state);
    let names: Vec<&str> = seen.iter().map(|it| it.invariant).collect();
    assert!(broken.is_none_or(|it| invariants::names().any(|name| name == it)));
    match broken {
        None => assert_eq!(names, Vec::<&str>::new(), "{seen:?}"),
        Some(broken) => assert!(names.contains(&broken), "{seen:?}"),
    }
}

#[test]
fn what_was_done_or_committed_stays_so() {
    const BROKEN: Option<&str> = Some("committed_never_goes_back");
    let mut script = seated();
    script.commit("expert-0#1", 300);
    let tick = Event::Tick;
    holds(&script, &tick, &was(&script, "expert-0", |it| it.phase = Phase::Done), BROKEN);
    let newer = |incarnation| {
        move |it: &mut Work| it.committed = vec![checkpoint(ModelId::Expert(0), incarnation, 310)]
    };
    holds(&script, &tick, &was(&script, "expert-0", newer(1)), BROKEN);
    // The next gang found it damaged, and went on from an older one.
    holds(&script, &tick, &was(&script, "expert-0", newer(0)), None);
    let seed = |script: &Script| was(script, "seed", |it| it.strikes = 1);
    holds(&script, &tick, &seed(&script), None);
    for odd in [checkpoint(ModelId::Expert(0), 1, 300), checkpoint(ModelId::Expert(1), 1, 301)] {
        let mut script = script.clone();
        spoilt(&mut script, "expert-0", |it| it.committed.push(odd));
        holds(&script, &tick, &was(&script, "expert-0", |it| it.strikes = 1), BROKEN);
    }
}

#[test]
fn a_new_leader_has_a_higher_term_and_stops_nothing() {
    const BROKEN: Option<&str> = Some("failover_restarts_nothing");
    let mut script = seated();
    script.state.term = Term(2);
    let lead = Event::TookLead { term: Term(2) };
    let of_term = |term, mut effects: Effects| {
        effects.before.term = Term(term);
        effects
    };
    let moved = was(&script, "expert-0", |it| it.gang_mut().unwrap().rendezvous = Some("a".into()));
    holds(&script, &lead, &of_term(1, moved.clone()), BROKEN);
    holds(&script, &lead, &of_term(2, moved.clone()), None);
    holds(&script, &Event::Tick, &of_term(1, moved), None);
    holds(&script, &Event::Tick, &of_term(3, Effects::default()), BROKEN);
    holds(&script, &lead, &of_term(1, was(&script, "expert-0", |it| it.strikes = 1)), None);
    holds(&script, &lead, &of_term(1, was(&script, "expert-0", waited)), None);
}

#[test]
fn a_hundred_objects_fit_and_one_more_does_not() {
    let script = seated();
    let objects = |count: u32| (0..count).map(|at| Object::Node(NodeName(format!("n{at}"))));
    let of = |count| Effects { changed: objects(count).collect(), ..Effects::default() };
    holds(&script, &Event::Tick, &of(99), None);
    holds(&script, &Event::Tick, &of(100), None);
    holds(&script, &Event::Tick, &of(101), Some("few_objects_per_step"));
    holds(&script, &Event::Tick, &of(102), Some("few_objects_per_step"));
}

#[test]
fn a_loss_stops_the_gangs_it_hits_and_no_other() {
    const BROKEN: Option<&str> = Some("losses_stay_where_they_are");
    let seat = || Seat { worker: WorkerId("w3".into()), slot: 0 };
    let stopped = |cause| {
        let mut script = seated();
        spoilt(&mut script, "expert-1", |it| stopping(it, cause));
        let effects = was(&script, "expert-1", ran);
        (script, effects)
    };
    let (mut script, effects) = stopped(Stop::RankGone);
    let mut other_run = exited("expert-1#1");
    if let Event::RankExited { fence, .. } = &mut other_run {
        fence.run = "other".parse().unwrap();
    }
    let inspected = Event::Inspected { fence: fence_of("expert-0#1"), newest: None };
    for (event, broken) in [
        (exited("expert-0#1"), BROKEN),
        (exited("expert-1#1"), None),
        (other_run, BROKEN),
        (left("w1"), BROKEN),
        (left("w3"), None),
        (left("w4"), None),
        (inspected, BROKEN),
        (Event::Tick, None),
    ] {
        holds(&script, &event, &effects, broken);
    }
    // Its worker is lost by the way.
    let mut out = effects.clone();
    out.before.workers.insert(seat().worker, None);
    holds(&script, &exited("expert-0#1"), &out, None);
    for (later, broken) in [(0, None), (1, BROKEN)] {
        let at = Millis(script.state.clock.0 + later);
        worker_of(&mut script, "w3", |it| it.lost_at = Some(at));
        holds(&script, &exited("expert-0#1"), &effects, broken);
    }
    // It goes on.
    let script = seated();
    let same = was(&script, "expert-1", |it| it.strikes = 1);
    holds(&script, &exited("expert-0#1"), &same, None);
    let by = || ("clipart".parse().unwrap(), WorkId::Model(ModelId::Expert(0)));
    for (cause, broken) in [
        (Stop::Preempted { by: by().0, work: by().1 }, None),
        (Stop::RunStopping, None),
        (Stop::Drained { node: NodeName("n3".into()) }, None),
        (Stop::DeviceWithdrawn { seat: seat() }, BROKEN),
        (Stop::Hung { seconds: 60 }, BROKEN),
    ] {
        let (script, effects) = stopped(cause);
        holds(&script, &exited("expert-0#1"), &effects, broken);
    }
    let (mut script, effects) = stopped(Stop::DeviceWithdrawn { seat: seat() });
    worker_of(&mut script, "w3", |it| it.withdrawn = [(0, "ECC".into())].into());
    holds(&script, &exited("expert-0#1"), &effects, None);
}

#[test]
fn a_new_gang_has_a_new_fence_and_begins_when_the_old_one_is_gone() {
    const BROKEN: Option<&str> = Some("new_gang_new_fence");
    let script = seated();
    let tick = Event::Tick;
    let numbered = |work: &mut Work, incarnation, gone: u32| {
        work.incarnation = Incarnation(incarnation);
        let exited = (0..gone).map(|rank| (rank, done())).collect();
        work.gang_mut().unwrap().exited = exited;
    };
    let back = |it: &mut Work| {
        waited(it);
        it.incarnation = Incarnation(2);
    };
    holds(&script, &tick, &was(&script, "expert-0", back), BROKEN);
    let moved = |it: &mut Work| it.gang_mut().unwrap().seats.reverse();
    holds(&script, &tick, &was(&script, "expert-0", moved), BROKEN);
    holds(&script, &tick, &was(&script, "expert-0", |it| numbered(it, 0, 0)), BROKEN);
    holds(&script, &tick, &was(&script, "expert-0", |it| numbered(it, 0, 1)), None);
    holds(&script, &tick, &was(&script, "expert-0", |it| numbered(it, 0, 2)), None);
    holds(&script, &tick, &was(&script, "expert-0", |it| numbered(it, 1, 0)), None);
}

#[test]
fn nothing_is_seated_where_nothing_new_may_be() {
    const BROKEN: Option<&str> = Some("nothing_new_on_closed_nodes");
    let cordoned = || Node { cordoned: Some("fan".into()), ..Node::default() };
    let away = Trust::Quarantined { until: Millis(1_000) };
    let quarantined = Node { trust: away, ..Node::default() };
    for node in [cordoned(), quarantined] {
        let mut script = seated();
        script.state.nodes.insert(NodeName("n1".into()), node);
        holds(&script, &Event::Tick, &was(&script, "expert-0", waited), BROKEN);
        holds(&script, &Event::Tick, &was(&script, "expert-0", |it| it.strikes = 1), None);
        holds(&script, &Event::Tick, &was(&script, "expert-1", waited), None);
    }
    for (slot, broken) in [(0, BROKEN), (1, None)] {
        let mut script = seated();
        worker_of(&mut script, "w1", |it| it.withdrawn = [(slot, "ECC".into())].into());
        holds(&script, &Event::Tick, &was(&script, "expert-0", waited), broken);
    }
    let mut script = seated();
    worker_of(&mut script, "w1", |it| it.lost_at = Some(Millis(1_000)));
    holds(&script, &Event::Tick, &was(&script, "expert-0", waited), BROKEN);
}
