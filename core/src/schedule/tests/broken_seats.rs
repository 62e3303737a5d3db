//! The invariants of seats, and what is wrong with a whole state: see [`super::broken`].

use super::broken::{exited, holds, left, spoilt, waited, was, worker_of};
use super::ends::seated;
use super::*;

fn seat(worker: &str) -> Seat {
    Seat { worker: WorkerId(worker.into()), slot: 0 }
}

fn sits(script: &mut Script, work: &str, at: &[&str]) {
    let seats = at.iter().map(|worker| seat(worker)).collect();
    spoilt(script, work, |it| it.gang_mut().unwrap().seats = seats);
}

#[test]
fn one_rank_sits_on_a_seat_that_its_work_holds() {
    const BROKEN: Option<&str> = Some("one_rank_per_seat");
    let mut script = seated();
    holds(&script, &Event::Tick, &was(&script, "expert-0", waited), None);
    sits(&mut script, "expert-0", &["w3", "w2"]);
    holds(&script, &Event::Tick, &was(&script, "expert-0", waited), BROKEN);
    holds(&script, &Event::Tick, &was(&script, "expert-0", |it| it.strikes = 1), None);
    let mut both = was(&script, "expert-0", waited);
    both.before.works.extend(was(&script, "expert-1", waited).before.works);
    let seen = violations(&About::of(&Event::Tick), &both, &script.state);
    assert!(seen.iter().any(|it| it.seen.contains("shares seat")), "{seen:?}");
    let mut script = seated();
    worker_of(&mut script, "w1", |it| it.offer.slots = 0);
    holds(&script, &Event::Tick, &was(&script, "expert-0", waited), BROKEN);
}

#[test]
fn a_seat_is_freed_by_its_ranks_word_or_its_workers_loss() {
    const BROKEN: Option<&str> = Some("seats_are_freed_by_word");
    let mut script = seated();
    let gone = |script: &mut Script, ranks: u32| {
        let exits = (0..ranks).map(|rank| (rank, done())).collect();
        spoilt(script, "expert-0", |it| it.gang_mut().unwrap().exited = exits);
        was(script, "expert-0", |it| it.gang_mut().unwrap().exited.clear())
    };
    let one = gone(&mut script, 1);
    let (worker, fence) = (WorkerId("w1".into()), fence_of("expert-0#1"));
    let posted = Event::RendezvousPosted { worker, fence, address: "a:1".into() };
    let mut other_run = exited("expert-0#1");
    if let Event::RankExited { fence, .. } = &mut other_run {
        fence.run = "other".parse().unwrap();
    }
    for (event, broken) in [
        (exited("expert-0#1"), None),
        (exited("expert-1#1"), BROKEN),
        (other_run, BROKEN),
        (posted, BROKEN),
        (Event::Tick, BROKEN),
        (left("w1"), BROKEN),
    ] {
        holds(&script, &event, &one, broken);
    }
    let mut lost = one.clone();
    lost.before.workers.insert(WorkerId("w1".into()), None);
    holds(&script, &left("w1"), &lost, None);
    let mut two = gone(&mut script, 2);
    holds(&script, &exited("expert-0#1"), &two, BROKEN);
    two.before.workers.insert(WorkerId("w1".into()), None);
    holds(&script, &Event::Tick, &two, BROKEN);
    holds(&script, &exited("expert-0#1"), &two, None);
}

#[test]
fn what_is_refused_leads_to_nothing_but_its_answer() {
    const BROKEN: Option<&str> = Some("refusals_change_nothing");
    let script = seated();
    let (worker, fence) = (WorkerId("w1".into()), fence_of("expert-0#1"));
    let node = Object::Node(NodeName("n1".into()));
    let stop = Action::StopRank {
        seat: seat("w1"),
        fence: fence.clone(),
        rank: 0,
        save: false,
        tell: false,
    };
    let why = Refusal::UnknownWork;
    let refuse = Action::Refuse { worker, fence, why: why.clone() };
    let refused = Effects { refusal: Some(why), actions: vec![refuse], ..Effects::default() };
    holds(&script, &Event::Tick, &refused, None);
    let changed = Effects { changed: [node].into(), ..refused.clone() };
    holds(&script, &Event::Tick, &changed, BROKEN);
    let acted = Effects { actions: vec![stop], ..refused };
    holds(&script, &Event::Tick, &acted, BROKEN);
    holds(&script, &Event::Tick, &Effects { refusal: None, ..acted }, None);
}

#[test]
fn nothing_starts_before_its_needs_are_there() {
    const BROKEN: Option<&str> = Some("starts_only_after_its_needs");
    for step in [287, 288, 289] {
        let mut script = seated();
        spoilt(&mut script, "seed", |it| it.committed = vec![checkpoint(ModelId::Seed, 1, step)]);
        let broken = BROKEN.filter(|_| step < 288);
        holds(&script, &Event::Tick, &was(&script, "expert-0", waited), broken);
    }
    let mut script = seated();
    spoilt(&mut script, "seed", waited);
    holds(&script, &Event::Tick, &was(&script, "expert-0", waited), BROKEN);
    let mut script = seated();
    script.state.runs.values_mut().next().unwrap().head.phase = RunPhase::Cancelled;
    holds(&script, &Event::Tick, &was(&script, "expert-0", waited), BROKEN);
}

#[test]
fn a_gang_is_whole_on_devices_of_one_kind_that_it_requires() {
    const BROKEN: Option<&str> = Some("whole_gangs");
    for at in [&["w1"][..], &["w1", "w1"], &["w1", "w2", "w3"]] {
        let mut script = seated();
        sits(&mut script, "expert-0", at);
        holds(&script, &Event::Tick, &was(&script, "expert-0", waited), BROKEN);
    }
    let mut script = seated();
    worker_of(&mut script, "w2", |it| it.offer.kind = "NVIDIA H100".into());
    holds(&script, &Event::Tick, &was(&script, "expert-0", waited), BROKEN);
    let mut script = seated();
    let run = script.state.runs.values_mut().next().unwrap();
    run.head.spec.spec.gangs.expert.requires.gpu = Some("H100".into());
    holds(&script, &Event::Tick, &was(&script, "expert-0", waited), BROKEN);
}

#[test]
fn what_is_wrong_with_a_whole_state_is_told() {
    let wrong = |change: &dyn Fn(&mut Script), told: &str| {
        let mut script = seated();
        change(&mut script);
        let seen = whole(&script.state, script.now);
        assert!(seen.iter().any(|it| it.contains(told)), "{told}: {seen:?}");
    };
    let head = |script: &mut Script, change: &dyn Fn(&mut RunHead)| {
        change(&mut script.state.runs.values_mut().next().unwrap().head);
    };
    wrong(&|it| sits(it, "expert-0", &["w3", "w2"]), "shares seat w3:0");
    wrong(&|it| sits(it, "expert-0", &["w9", "w2"]), "sits at no known worker w9:0");
    wrong(&|it| it.state.index = Index::default(), "and should be");
    wrong(&|it| head(it, &|head| head.phase = RunPhase::Finished), "while something is under way");
    wrong(&|it| head(it, &|head| head.ended = Some(Millis(1))), "is Active and ended at");
    let all_done = |it: &mut Script| {
        let run = it.state.runs.values_mut().next().unwrap();
        run.works.values_mut().for_each(|work| work.phase = Phase::Done);
    };
    wrong(&all_done, "is active and nothing of it can go on");
}
