//! Who is asked to leave for a more urgent run, and who is not.

use super::kept::seed_waits;
use super::*;

/// Two experts of so many ranks, less urgent than all else.
fn experts(ranks: u32) -> Script {
    let ranks = format!("expert: {{ranks: {ranks}");
    Script::trained(spec_with(&[("expert: {ranks: 2", &*ranks)]))
}

impl Script {
    fn attach_kind(&mut self, worker: &str, slots: u32, kind: &str) {
        let offer = Offer { kind: kind.into(), ..offer(worker, slots) };
        let (worker, withdrawn) = (WorkerId(worker.into()), BTreeMap::new());
        self.event(Event::WorkerAttached { worker, offer, withdrawn, ranks: vec![] });
    }

    /// A worker of no use to anybody joins: placement looks at everything again.
    fn look_again(&mut self) {
        let worker = format!("w{}", 10 + self.state.workers.len());
        self.attach_kind(&worker, 1, &format!("kind of {worker}"));
    }

    /// The seed of an urgent run waits for two seats of `gpu`; says who was told to stop.
    fn urgent_seed(&mut self, requires: &str) -> Vec<String> {
        // Its job was never seated, and asked nobody: it is done before placement looks.
        let seed = format!("seed: {{requires: {requires}, ranks: 2}}");
        let mut other = Script::new();
        other.apply("urgent", 5, &[("seed: {ranks: 2}", &seed)]);
        self.state.runs.append(&mut other.state.runs);
        seed_waits(self, "urgent");
        self.look_again();
        self.stopped()
    }

    /// Works that were told to stop since this was asked last.
    fn stopped(&mut self) -> Vec<String> {
        let told = std::mem::take(&mut self.told);
        let stops = told.lines().filter_map(|line| line.strip_prefix("stop clipart/"));
        let mut works: Vec<String> =
            stops.map(|line| line.split('#').next().unwrap().to_owned()).collect();
        works.dedup();
        works
    }
}

#[test]
fn as_many_gangs_are_asked_as_are_needed_and_once() {
    let mut script = experts(2);
    script.attach("w1", 2, vec![]);
    script.attach("w2", 2, vec![]);
    assert_eq!(script.urgent_seed("{}"), ["expert-0"]);
    script.look_again();
    assert_eq!(script.stopped(), Vec::<String>::new());
    // One seat is free, one gang's is needed, and then it is coming.
    let mut script = experts(1);
    script.attach("w1", 3, vec![]);
    assert_eq!(script.urgent_seed("{}"), ["expert-0"]);
    script.look_again();
    assert_eq!(script.stopped(), Vec::<String>::new());
}

#[test]
fn nobody_is_asked_whose_seats_would_not_do() {
    let gone = |event: Option<Event>, requires: &str| {
        let mut script = experts(2);
        script.attach("w1", 2, vec![]);
        script.attach_kind("w2", 2, "far");
        script.cordon("n2", false);
        event.into_iter().for_each(|event| script.event(event));
        script.urgent_seed(requires)
    };
    assert_eq!(gone(None, "{}"), ["expert-0"]);
    let (worker, node) = (WorkerId("w1".into()), NodeName("n1".into()));
    let cordoned = Event::NodeCordoned { node, reason: "fan".into(), drain: false };
    assert_eq!(gone(Some(cordoned), "{}"), Vec::<String>::new());
    assert_eq!(gone(Some(Event::WorkerDetached { worker }), "{}"), Vec::<String>::new());
    assert_eq!(gone(None, "{gpu: H100}"), Vec::<String>::new());
    let mut script = experts(2);
    script.attach("w1", 2, vec![]);
    script.attach("w2", 2, vec![]);
    script.event(Event::WorkerDetached { worker: WorkerId("w1".into()) });
    assert_eq!(script.urgent_seed("{}"), ["expert-1"]);
}

#[test]
fn nobody_is_asked_in_vain() {
    let mut script = experts(1);
    script.apply("equal", 5, &[]);
    script.attach("w1", 2, vec![]);
    // Its own seat, and one of a job that is as urgent.
    assert!(matches!(script.work("expert-0").phase, Phase::Running(_)));
    assert_eq!(script.urgent_seed("{}"), Vec::<String>::new());
}

#[test]
fn gangs_leave_the_kind_of_device_where_it_costs_fewest_seats() {
    // `expert-0` takes the first kind of its liking, `expert-1` the other.
    for (a, b, leaves) in [(3, 2, "a"), (2, 3, "b"), (2, 2, "a")] {
        let mut script = experts(2);
        script.attach_kind("w1", a, "a");
        script.attach_kind("w2", b, "b");
        let of_a = script.work("expert-0").gang().unwrap().seats[0].worker.0 == "w1";
        let expected = if of_a == (leaves == "a") { "expert-0" } else { "expert-1" };
        assert_eq!(script.urgent_seed("{}"), [expected], "{a} {b}");
    }
}

#[test]
fn free_seats_of_another_kind_are_no_help() {
    let mut script = experts(2);
    script.attach_kind("w1", 2, "a");
    script.attach_kind("w2", 2, "b");
    script.attach_kind("w3", 2, "b");
    assert_eq!(script.urgent_seed("{gpu: a}"), ["expert-0"]);
}
