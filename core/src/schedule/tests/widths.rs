//! Gangs that go on with fewer seats, and are given more when there are more.

use super::*;

/// One expert of four ranks at most and two at least, and twelve micro-batches for them to share.
const ELASTIC: [(&str, &str); 4] = [
    ("globalBatch: 128", "globalBatch: 96"),
    ("microBatch: 64", "microBatch: 8"),
    ("experts: 2", "experts: 1"),
    ("expert: {ranks: 2", "expert: {ranks: 4, minRanks: 2"),
];

fn elastic(more: &[(&str, &str)]) -> Script {
    Script::trained(spec_with(&[&ELASTIC[..], more].concat()))
}

impl Script {
    fn width(&self, work: &str) -> usize {
        self.work(work).gang().map_or(0, |gang| gang.seats.len())
    }

    fn lose(&mut self, worker: &str) {
        self.event(Event::WorkerDetached { worker: WorkerId(worker.into()) });
        self.at(self.now.0 + 4_000);
    }

    /// All ranks of a gang leave as they were asked to, and had saved.
    fn all_leave(&mut self, fence: &str, saved: Option<u64>) {
        let gang = self.state.work(&fence_of(fence).run, fence_of(fence).work).unwrap().gang();
        let alive: Vec<u32> = gang.unwrap().alive().map(|(rank, _)| rank).collect();
        for rank in alive {
            self.exit(fence, rank, Outcome::Stopped);
        }
        self.inspected(fence, saved);
    }

    fn tick(&mut self) {
        self.at(self.now.0 + 500);
    }

    /// Before anybody sits there.
    fn cordon_all(&mut self, nodes: &[&str]) {
        for node in nodes {
            self.state.nodes.insert(
                NodeName((*node).into()),
                Node { cordoned: Some("fan".into()), ..Node::default() },
            );
        }
        self.state.index = Index::of(&self.state);
    }
}

#[test]
fn a_gang_goes_on_with_the_seats_that_are_left_and_gets_more_once_it_has_saved() {
    let mut script = elastic(&[]);
    script.attach("w1", 2, vec![]);
    assert_eq!(script.width("expert-0"), 2);
    script.attach("w2", 2, vec![]);
    // It has saved nothing yet.
    script.tick();
    script.told.clear();
    script.commit("expert-0#1", 300);
    script.tick();
    script.check(&expect![[r#"
        stop clipart/expert-0#1 rank 0 on w1:0, save: true
        stop clipart/expert-0#1 rank 1 on w1:1, save: true
    "#]]);
    script.all_leave("expert-0#1", Some(301));
    script.check(&expect![[r#"
        inspect clipart/expert-0#1
        start clipart/expert-0#2 rank 0 on w1:0 from expert-0 gang-1 step-301
        start clipart/expert-0#2 rank 1 on w1:1 from expert-0 gang-1 step-301
        start clipart/expert-0#2 rank 2 on w2:0 from expert-0 gang-1 step-301
        start clipart/expert-0#2 rank 3 on w2:1 from expert-0 gang-1 step-301
    "#]]);
    script.lose("w2");
    script.all_leave("expert-0#2", None);
    assert_eq!((script.width("expert-0"), script.work("expert-0").strikes), (2, 0));
    script.attach("w3", 1, vec![]);
    script.commit("expert-0#3", 310);
    script.tick();
    script.all_leave("expert-0#3", None);
    assert_eq!(script.width("expert-0"), 3);
    // All that it may have, and nobody leaves for nothing.
    script.attach("w4", 3, vec![]);
    script.commit("expert-0#4", 320);
    script.tick();
    script.all_leave("expert-0#4", None);
    script.commit("expert-0#5", 330);
    script.at(script.now.0 + 2_000);
    assert_eq!(script.width("expert-0"), 4);
    assert!(matches!(script.work("expert-0").phase, Phase::Running(_)));
}

#[test]
fn no_gang_is_narrower_than_its_least_or_than_the_batch_allows() {
    let mut script = elastic(&[]);
    script.attach("w1", 1, vec![]);
    assert_eq!(script.why("expert-0"), "needs 2 seats, the cluster has 1");
    // Five could not share twelve micro-batches, and four are the most.
    let mut script = elastic(&[("ranks: 4, minRanks: 2", "ranks: 6, minRanks: 3")]);
    script.attach("w1", 5, vec![]);
    assert_eq!(script.width("expert-0"), 4);
}

#[test]
fn a_gang_waits_for_all_its_seats_if_they_will_soon_be_free() {
    let mut script = elastic(&[]);
    // A job takes one of the four seats for about a minute.
    script.apply("short", 1, &[]);
    script.attach("w1", 4, vec![]);
    assert_eq!(script.width("expert-0"), 0);
    assert_eq!(script.why("expert-0"), "needs 4 seats, 3 free");
    // Nobody knows when a worker comes back that is not there: so it begins with what is.
    let mut script = elastic(&[]);
    script.apply("short", 1, &[]);
    script.attach("w1", 3, vec![]);
    script.attach("w2", 1, vec![]);
    assert_eq!(script.width("expert-0"), 0);
    script.lose("w2");
    assert_eq!(script.why("expert-0"), "needs 3 seats, 2 free");
    let mut script =
        elastic(&[("expert: {ranks: 4, minRanks: 2", "expert: {ranks: 4, minRanks: 1")]);
    script.attach("w1", 3, vec![]);
    assert_eq!(script.width("expert-0"), 3);
}

#[test]
fn a_gang_takes_fewer_seats_if_the_others_are_taken_for_long() {
    let mut script = elastic(&[]);
    script.apply("long", 1, &[]);
    kept::seed_waits(&mut script, "long");
    script.attach("w1", 4, vec![]);
    // The seed of the other run has two of them, and has told no pace: for an hour, as far as is known.
    assert_eq!(script.width("expert-0"), 2);
    assert!(script.told.contains("start long/seed#1 rank 1"), "{}", script.told);
}

#[test]
fn a_gang_waits_for_all_its_seats_if_it_would_end_later_with_fewer() {
    // The others are taken for an hour, as far as is guessed. With half of its seats it takes twice its steps, a
    // second each.
    for (steps, width) in [(3_500, 2), (3_700, 0)] {
        let steps = format!("expertSteps: {steps}");
        let mut script = elastic(&[("expertSteps: 144", &steps)]);
        script.apply("long", 1, &[]);
        kept::seed_waits(&mut script, "long");
        script.attach("w1", 4, vec![]);
        script.at(119_500);
        assert_eq!(script.width("expert-0"), width, "{steps}");
        // Who has lost patience believes no guess.
        script.at(121_000);
        assert_eq!(script.width("expert-0"), 2, "{steps}");
    }
}

#[test]
fn seats_that_would_not_do_are_not_waited_for_however_soon_they_are_free() {
    let requires = "requires: {labels: {zone: a}}, ";
    let gang = format!("expert: {{{requires}ranks: 4, minRanks: 2");
    let mut script = elastic(&[("expert: {ranks: 4, minRanks: 2", &gang)]);
    let zone_a = |worker: &str, slots: u32| {
        let labels = [("zone".to_owned(), "a".to_owned())].into();
        Offer { labels, ..offer(worker, slots) }
    };
    let join = |script: &mut Script, offer: Offer| {
        let (worker, withdrawn) = (WorkerId(offer.node.0.replace('n', "w")), BTreeMap::new());
        script.event(Event::WorkerAttached { worker, offer, withdrawn, ranks: vec![] });
    };
    // A seed has two of the four that would do, for an hour as far as is known; a job has one that would not.
    let seed = format!("seed: {{{requires}ranks: 2}}");
    script.apply("long", 1, &[("seed: {ranks: 2}", &seed)]);
    kept::seed_waits(&mut script, "long");
    script.apply("short", 2, &[]);
    join(&mut script, offer("w1", 1));
    join(&mut script, zone_a("w2", 2));
    assert!(script.told.contains("start long/seed#1 rank 1 on w2:1"), "{}", script.told);
    join(&mut script, zone_a("w3", 2));
    join(&mut script, offer("w4", 3));
    assert_eq!(script.sits_at("expert-0"), ["w3:0", "w3:1"]);
}

#[test]
fn a_gang_that_is_asked_to_leave_by_a_more_urgent_one_goes_on_with_what_that_leaves() {
    let mut script = elastic(&[]);
    script.attach("w1", 4, vec![]);
    script.commit("expert-0#1", 300);
    script.apply("urgent", 5, &[]);
    kept::seed_waits(&mut script, "urgent");
    script.attach("w9", 1, vec![]);
    script.lose("w9");
    assert!(matches!(script.work("expert-0").phase, Phase::Stopping { .. }));
    script.all_leave("expert-0#1", Some(305));
    assert_eq!(script.width("expert-0"), 2);
}

#[test]
fn a_gang_is_widened_only_if_that_saves_more_than_two_starts_and_onto_open_nodes() {
    let widened = |prepare: &dyn Fn(&mut Script)| {
        let mut script = elastic(&[]);
        script.attach("w1", 2, vec![]);
        script.attach("w2", 2, vec![]);
        prepare(&mut script);
        script.tick();
        matches!(script.work("expert-0").phase, Phase::Stopping { .. })
    };
    // Two seconds a step on half of the seats as long as nobody knows better, and a minute to start.
    assert!(widened(&|script| script.commit("expert-0#1", 432 - 120)));
    assert!(!widened(&|script| script.commit("expert-0#1", 432 - 119)));
    // Its first step came after ten seconds; then it takes two a step.
    let steps = |script: &mut Script, last: u64| {
        script.at(10_000);
        script.steps("expert-0#1", last - 4);
        for step in 1..=4 {
            script.at(10_000 + 2_000 * step);
            script.steps("expert-0#1", last - 4 + step);
        }
        script.commit("expert-0#1", last);
    };
    assert!(widened(&|script| steps(script, 432 - 20)));
    assert!(!widened(&|script| steps(script, 432 - 19)));
    assert!(!widened(&|script| {
        script.cordon("n2", false);
        script.commit("expert-0#1", 300);
    }));
    // Of its own seats one will not be its own again.
    assert!(!widened(&|script| {
        script.cordon("n1", false);
        script.commit("expert-0#1", 300);
    }));
}

#[test]
fn gangs_are_widened_one_at_a_time() {
    let two = [("experts: 1", "experts: 2"), ("ranks: 4, minRanks: 2", "ranks: 4, minRanks: 1")];
    let mut script = elastic(&two);
    script.attach("w1", 1, vec![]);
    script.attach("w2", 1, vec![]);
    assert_eq!([script.width("expert-0"), script.width("expert-1")], [1, 1]);
    script.attach("w3", 2, vec![]);
    script.commit("expert-0#1", 300);
    script.commit("expert-1#1", 300);
    script.at(script.now.0 + 2_000);
    let is_stopping =
        |script: &Script, work: &str| matches!(script.work(work).phase, Phase::Stopping { .. });
    assert!(is_stopping(&script, "expert-0") && !is_stopping(&script, "expert-1"));
    script.all_leave("expert-0#1", None);
    script.at(script.now.0 + 2_000);
    assert_eq!([script.width("expert-0"), script.width("expert-1")], [3, 1]);
    assert!(!is_stopping(&script, "expert-1"));
}

/// One expert on two seats of four, the seed of another run that has so many seconds left on two more, a third
/// that waits for so many seats, and two seats that are free.
fn another_waits(seconds: u64, ranks: u32) -> Script {
    let mut script = elastic(&[]);
    script.attach("w1", 2, vec![]);
    script.apply("other", 0, &[("seedSteps: 288", &format!("seedSteps: {seconds}"))]);
    kept::seed_waits(&mut script, "other");
    script.attach("w4", 2, vec![]);
    let seed = format!("seed: {{ranks: {ranks}}}");
    let twelve = [("globalBatch: 128", "globalBatch: 96"), ("microBatch: 64", "microBatch: 8")];
    script.apply("wide", 0, &[&twelve[..], &[("seed: {ranks: 2}", &seed)]].concat());
    kept::seed_waits(&mut script, "wide");
    script.attach("w2", 2, vec![]);
    for step in 0..4 {
        script.at(script.now.0 + 1_000);
        script.steps("expert-0#1", 299 + step);
        let fence = Fence { run: "other".parse().unwrap(), ..fence_of("seed#1") };
        let worker = WorkerId("w4".into());
        script.event(Event::Progressed { worker, fence, rank: 0, done: step, busy_us: 0 });
    }
    script.commit("expert-0#1", 302);
    assert!(script.state.kept.contains_key("cpu"));
    script.tick();
    script
}

#[test]
fn seats_that_another_waits_for_are_taken_only_if_it_has_its_own_no_later() {
    // It waits for a gang that has ten minutes left; on four seats the expert has one.
    let mut script = another_waits(600, 6);
    let cause = Stop::Widened { to: 4 };
    let Phase::Stopping { cause: found, .. } = &script.work("expert-0").phase else { panic!() };
    assert_eq!(*found, cause);
    script.all_leave("expert-0#1", None);
    assert_eq!(script.width("expert-0"), 4);
    // It waits for one that ends before the expert would.
    let script = another_waits(10, 6);
    assert!(matches!(script.work("expert-0").phase, Phase::Running(_)));
    // It would take the expert's own seats, too.
    let script = another_waits(600, 4);
    assert!(matches!(script.work("expert-0").phase, Phase::Running(_)));
}

#[test]
fn a_gang_waits_for_all_its_seats_for_two_minutes_at_most() {
    let mut script = elastic(&[]);
    // A job that takes much longer than jobs do.
    script.apply("short", 1, &[]);
    script.attach("w1", 4, vec![]);
    script.at(119_500);
    assert_eq!(script.width("expert-0"), 0);
    script.at(121_000);
    assert_eq!(script.width("expert-0"), 3);
}

#[test]
fn who_has_waited_for_two_minutes_believes_no_job_to_be_about_to_end() {
    // With three of four ranks 4,000 s become 5,333; a job is taken to last a minute more, always.
    let mut script = elastic(&[("expertSteps: 144", "expertSteps: 4000")]);
    script.apply("short", 1, &[]);
    script.attach("w1", 4, vec![]);
    script.at(119_500);
    assert_eq!(script.width("expert-0"), 0);
    script.at(121_000);
    assert_eq!(script.width("expert-0"), 3);
}

#[test]
fn an_urgent_gang_has_others_leave_rather_than_begin_with_fewer_ranks() {
    let mut script = Script::trained_seed();
    script.attach("w1", 4, vec![]);
    let seed = [("seed: {ranks: 2}", "seed: {ranks: 4, minRanks: 1}")];
    let twelve = [("globalBatch: 128", "globalBatch: 96"), ("microBatch: 64", "microBatch: 8")];
    script.apply("urgent", 5, &[&twelve[..], &seed].concat());
    kept::seed_waits(&mut script, "urgent");
    script.told.clear();
    script.attach("w2", 1, vec![]);
    assert!(!script.told.contains("start urgent/"), "{}", script.told);
    for expert in ["expert-0", "expert-1"] {
        let phase = &script.work(expert).phase;
        assert!(matches!(phase, Phase::Stopping { .. }), "{expert} {phase:?}");
    }
}

#[test]
fn workers_that_a_new_leader_has_not_heard_yet_are_waited_for() {
    let heard = |second: bool| {
        let mut script = elastic(&[]);
        script.cordon_all(&["n1", "n2"]);
        script.attach("w1", 2, vec![]);
        script.attach("w2", 2, vec![]);
        assert_eq!(script.width("expert-0"), 0);
        script.event(Event::TookLead { term: Term(2) });
        for node in ["n1", "n2"] {
            script.event(Event::NodeUncordoned { node: NodeName(node.into()) });
        }
        script.attach("w1", 2, vec![]);
        assert_eq!(script.width("expert-0"), 0);
        if second {
            script.attach("w2", 2, vec![]);
        } else {
            script.at(script.now.0 + 9_000);
        }
        script.width("expert-0")
    };
    assert_eq!([true, false].map(heard), [4, 2]);
}

#[test]
fn the_pace_of_a_narrow_gang_is_kept_as_that_of_one_with_all_its_ranks() {
    let mut script = elastic(&[]);
    script.attach("w1", 2, vec![]);
    for step in 0..4 {
        script.at(script.now.0 + 1_000);
        script.steps("expert-0#1", 299 + step);
    }
    script.commit("expert-0#1", 302);
    assert_eq!(script.work("expert-0").pace, Some(500_000));
}

#[test]
fn a_document_is_admitted_if_its_narrowest_gangs_fit() {
    let mut script = Script::new();
    script.attach("w1", 2, vec![]);
    let document = |least: u32| {
        let gang = format!("ranks: 4, minRanks: {least}");
        spec_with(&[&ELASTIC[..], &[("ranks: 4, minRanks: 2", &gang)]].concat())
    };
    assert_eq!(admit(&script.state, &document(2)), Ok(()));
    assert_eq!(
        admit(&script.state, &document(3)).unwrap_err().to_string(),
        "spec.gangs.expert.minRanks: 3 seats are needed and the cluster has 2; 2 would fit, or apply it \
         with --queue to wait for more workers"
    );
}
