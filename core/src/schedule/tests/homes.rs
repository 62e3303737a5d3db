//! Where a gang sits if it may choose: where it sat, on one worker, in one domain.

use super::*;

impl Script {
    /// A gang saves and leaves, and is seated again at once.
    fn again(&mut self, fence: &str) {
        self.exit(fence, 0, Outcome::Stopped);
        self.exit(fence, 1, Outcome::Stopped);
        self.inspected(fence, None);
    }

    fn attach_in(&mut self, worker: &str, domain: &str) {
        let offer = Offer { domain: domain.into(), ..offer(worker, 1) };
        let (worker, withdrawn) = (WorkerId(worker.into()), BTreeMap::new());
        self.event(Event::WorkerAttached { worker, offer, withdrawn, ranks: vec![] });
    }
}

fn one_expert() -> Script {
    Script::trained(spec_with(&[("experts: 2", "experts: 1")]))
}

#[test]
fn a_gang_sits_again_on_the_worker_where_it_sat() {
    let mut script = one_expert();
    script.attach("w2", 2, vec![]);
    script.attach("w1", 2, vec![]);
    script.again("expert-0#1");
    assert_eq!(script.sits_at("expert-0"), ["w2:0", "w2:1"]);
    // Not where it failed.
    script.exit("expert-0#2", 0, crashed(0));
    script.exit("expert-0#2", 1, crashed(1));
    script.inspected("expert-0#2", None);
    script.at(5_000);
    assert_eq!(script.sits_at("expert-0"), ["w1:0", "w1:1"]);
}

#[test]
fn a_gang_of_several_workers_sits_again_on_those_where_it_sat() {
    let mut script = one_expert();
    script.attach_in("w2", "rack");
    script.attach_in("w3", "rack");
    script.attach_in("w1", "rack");
    script.again("expert-0#1");
    assert_eq!(script.sits_at("expert-0"), ["w2:0", "w3:0"]);
}

#[test]
fn a_gang_sits_in_one_domain_and_leaves_the_emptier_one_to_wider_gangs() {
    let mut script = one_expert();
    for (worker, domain) in [("w1", "b"), ("w2", "c"), ("w3", "a"), ("w4", "c")] {
        script.attach_in(worker, domain);
        script.cordon(&worker.replace('w', "n"), false);
    }
    for (worker, domain) in [("w5", "a"), ("w6", "a")] {
        script.attach_in(worker, domain);
        script.cordon(&worker.replace('w', "n"), false);
    }
    // All at once.
    script.state.nodes.clear();
    script.state.index = Index::of(&script.state);
    script.event(Event::NodeCordoned {
        node: NodeName("n1".into()),
        reason: String::new(),
        drain: false,
    });
    script.attach_in("w7", "d");
    assert_eq!(script.sits_at("expert-0"), ["w2:0", "w4:0"]);
}
