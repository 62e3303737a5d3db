//! Blame, quarantine and retest of nodes.

use super::*;

/// Two experts sit on `n1`, which alone has room for them; there are four nodes.
fn sick() -> Script {
    sick_with(4, &[])
}

fn sick_with(nodes: u32, others: &[(&str, &str)]) -> Script {
    let patient = [("restarts: 1", "restarts: 50"), ("to: 60s", "to: 1s")];
    let mut script = Script::trained(spec_with(&[&patient, others].concat()));
    script.attach("w1", 8, vec![]);
    for other in 2..=nodes {
        script.join(&format!("w{other}"));
        script.cordon(&format!("n{other}"), false);
    }
    script
}

impl Script {
    /// The gang of `expert` crashes where it sits, and its rest passes.
    fn fail(&mut self, expert: &str) {
        let fence = format!("{expert}#{}", self.work(expert).incarnation);
        self.exit(&fence, 0, crashed(0));
        self.exit(&fence, 1, crashed(1));
        self.inspected(&fence, None);
        self.at(self.now.0 + 1_500);
    }

    fn trust(&self, node: &str) -> Trust {
        self.state.nodes.get(&NodeName(node.into())).map_or(Trust::Full, |it| it.trust.clone())
    }

    fn is_running(&self, work: &str) -> bool {
        matches!(self.work(work).phase, Phase::Running(_))
    }

    /// Until when a node is in quarantine, from now on.
    fn away(&self, node: &str) -> Option<u64> {
        match self.trust(node) {
            Trust::Quarantined { until } => Some(until.0 - self.now.0),
            Trust::Full | Trust::Retest => None,
        }
    }
}

#[test]
fn three_failures_of_two_works_close_a_node_and_a_retest_that_fails_closes_it_for_twice_as_long() {
    let mut script = sick();
    script.fail("expert-0");
    script.fail("expert-1");
    assert_eq!(script.trust("n1"), Trust::Full);
    script.fail("expert-0");
    assert_eq!(script.away("n1"), Some(600_000 - 1_500));
    script.fail("expert-1");
    assert_eq!(script.away("n1"), Some(600_000 - 3_000));
    assert!(!script.is_running("expert-0") && !script.is_running("expert-1"));
    script.at(script.now.0 + 600_000);
    assert_eq!(script.trust("n1"), Trust::Retest);
    // One work at a time, though there are seats for both.
    let running = ["expert-0", "expert-1"].map(|it| script.is_running(it));
    assert_eq!(running.iter().filter(|it| **it).count(), 1, "{running:?}");
    let tried = if running[0] { "expert-0" } else { "expert-1" };
    script.fail(tried);
    assert_eq!(script.away("n1"), Some(1_200_000 - 1_500));
    script.at(script.now.0 + 1_200_000);
    assert_eq!(script.trust("n1"), Trust::Retest);
    let tried = if script.is_running("expert-0") { "expert-0" } else { "expert-1" };
    let fence = format!("{tried}#{}", script.work(tried).incarnation);
    script.commit(&fence, 300);
    assert_eq!(script.trust("n1"), Trust::Full);
    assert!(script.is_running("expert-0") && script.is_running("expert-1"));
}

#[test]
fn one_broken_model_closes_no_node_and_no_more_than_a_quarter_is_ever_closed() {
    let mut script = sick();
    for _ in 0..6 {
        script.fail("expert-0");
    }
    assert_eq!(script.trust("n1"), Trust::Full);
    script.event(Event::WorkerLeft { worker: WorkerId("w4".into()) });
    script.fail("expert-1");
    script.fail("expert-1");
    assert_eq!(script.trust("n1"), Trust::Full, "one of three nodes is more than a quarter");
    script.join("w4");
    script.fail("expert-1");
    assert!(script.away("n1").is_some());
}

#[test]
fn a_commit_clears_what_a_node_was_blamed_for() {
    let mut script = sick();
    script.fail("expert-0");
    script.fail("expert-1");
    script.commit(&format!("expert-1#{}", script.work("expert-1").incarnation), 300);
    script.fail("expert-0");
    script.fail("expert-1");
    assert_eq!(script.trust("n1"), Trust::Full);
}

#[test]
fn failures_of_what_still_ran_there_lengthen_no_quarantine() {
    // Another one might be closed.
    let mut script = sick_with(8, &[("experts: 2", "experts: 4")]);
    for expert in ["expert-0", "expert-1", "expert-2"] {
        script.fail(expert);
    }
    assert_eq!(script.away("n1"), Some(600_000 - 1_500));
    for expert in ["expert-0", "expert-1", "expert-3"] {
        assert!(script.is_running(expert));
        script.fail(expert);
    }
    assert_eq!(script.away("n1"), Some(600_000 - 4 * 1_500));
}

#[test]
fn a_node_of_two_workers_that_is_opened_gets_work_at_once() {
    let mut script = Script::trained_seed();
    for worker in ["w1", "w2"] {
        let offer = Offer { node: NodeName("n1".into()), ..offer(worker, 1) };
        let (worker, withdrawn) = (WorkerId(worker.into()), BTreeMap::new());
        script.event(Event::WorkerAttached { worker, offer, withdrawn, ranks: vec![] });
        script.cordon("n1", false);
    }
    assert!(!script.is_running("expert-0"));
    script.event(Event::NodeUncordoned { node: NodeName("n1".into()) });
    assert!(script.is_running("expert-0"));
}

#[test]
fn a_node_that_is_drained_twice_is_drained() {
    let mut script = Script::trained_seed();
    script.attach("w1", 2, vec![]);
    script.cordon("n1", true);
    script.cordon("n1", true);
    script.cordon("n1", false);
    assert!(script.state.nodes[&NodeName("n1".into())].draining);
}
