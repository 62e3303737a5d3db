//! For whom seats are kept, to whom they are lent meanwhile, and who goes first.

use super::*;

/// What waits for the seats of `w1`, which `expert-0` holds, and those of `w2`, which are free.
struct Waits {
    /// Of `expert-0`, which takes ten seconds a step.
    ranks: u32,
    steps: u64,
    reached: u64,
    grace: u64,
    requires: &'static str,
    spare: Offer,
}

impl Default for Waits {
    fn default() -> Self {
        let spare = offer("w2", 3);
        Self { ranks: 2, steps: 144, reached: 422, grace: 20, requires: "{}", spare }
    }
}

/// Gives a run's models and jobs the look of one whose seed waits.
pub(super) fn seed_waits(script: &mut Script, run: &str) {
    let run = script.state.runs.get_mut(&run.parse().unwrap()).unwrap();
    for (id, work) in &mut run.works {
        if id.model().is_none() {
            work.phase = Phase::Done;
        }
    }
    script.state.index = Index::of(&script.state);
}

impl Waits {
    /// The seed of the run `wide` waits for four seats.
    fn script(self) -> Script {
        let Self { ranks, steps, reached, grace, requires, spare } = self;
        let (ranks, seats) = (format!("expert: {{ranks: {ranks}"), ranks);
        let (steps, grace) = (format!("expertSteps: {steps}"), format!("grace: {grace}s"));
        let both = [("microBatch: 64", "microBatch: 32"), ("grace: 20s", &grace)];
        let experts = [("expert: {ranks: 2", &*ranks), ("expertSteps: 144", &steps)];
        let mut script = Script::trained(spec_with(&[&both[..], &experts].concat()));
        let seed = format!("seed: {{requires: {requires}, ranks: 4}}");
        let wide = [("name: clipart", "name: wide"), ("seed: {ranks: 2}", &seed)];
        let wide = [&both[..], &wide, &[("seedSteps: 288", "seedSteps: 50000")]].concat();
        let mut offer = offer("w1", seats);
        offer.labels = [("zone".into(), "a".into())].into();
        offer.memory_mib = 40 * 1024;
        script.attach_as(offer);
        script.event(Event::Applied { spec: Box::new(spec_with(&wide)), tars: 1 });
        seed_waits(&mut script, "wide");
        for tick in 0..4 {
            script.at(10_000 * (tick + 1));
            script.steps("expert-0#1", reached - 3 + tick);
        }
        script.attach_as(spare);
        script.told.clear();
        script
    }
}

impl Script {
    fn attach_as(&mut self, offer: Offer) {
        let worker = WorkerId(offer.node.0.replace('n', "w"));
        let (withdrawn, ranks) = (BTreeMap::new(), vec![]);
        self.event(Event::WorkerAttached { worker, offer, withdrawn, ranks });
    }

    /// Applies a run of three short jobs that is less urgent; says how many of them are seated.
    fn jobs_seated(&mut self) -> usize {
        let changes = [("name: clipart", "name: short"), ("  gangs:", "  priority: -1\n  gangs:")];
        self.event(Event::Applied { spec: Box::new(spec_with(&changes)), tars: 3 });
        self.told.matches("start short/").count()
    }

    pub(super) fn apply(&mut self, name: &str, priority: i32, others: &[(&str, &str)]) {
        let (name, gangs) = (format!("name: {name}"), format!("  priority: {priority}\n  gangs:"));
        let changes = [&[("name: clipart", &*name), ("  gangs:", &gangs)], others].concat();
        self.event(Event::Applied { spec: Box::new(spec_with(&changes)), tars: 1 });
    }

    fn kept_for(&self) -> Option<String> {
        self.state.kept.values().next().map(|(run, work)| format!("{run}/{work}"))
    }
}

#[test]
fn seats_that_a_wide_gang_will_not_need_are_given_away_and_no_more() {
    // In twenty seconds `expert-0` is done and five seats are free, of which the seed needs four.
    let near = || Waits { reached: 430, ..Waits::default() };
    assert_eq!(near().script().jobs_seated(), 1);
    // Six of four.
    let spare = offer("w2", 2);
    assert_eq!(Waits { ranks: 4, spare, ..near() }.script().jobs_seated(), 2);
    // A job is taken to last a minute.
    assert_eq!(Waits::default().script().jobs_seated(), 3);
}

#[test]
fn who_is_told_to_stop_is_taken_to_leave_when_its_grace_is_over() {
    for (grace, seated) in [(20, 1), (120, 3)] {
        let mut script = Waits { grace, ..Waits::default() }.script();
        script.event(Event::CancelRequested { run: "clipart".parse().unwrap() });
        assert_eq!(script.jobs_seated(), seated, "{grace}");
    }
}

#[test]
fn a_model_that_has_not_taken_a_step_is_taken_to_last_an_hour() {
    for (steps, reached, seated) in [(144, 422, false), (1_440, 422, true), (300, 422, false)] {
        let mut script = Waits { steps, reached, ..Waits::default() }.script();
        script.apply("new", -1, &[]);
        seed_waits(&mut script, "new");
        // Something new: placement looks again.
        script.attach_as(Offer { kind: "other".into(), ..offer("w3", 1) });
        assert_eq!(script.told.contains("start new/seed#1"), seated, "{steps} {}", script.told);
    }
}

#[test]
fn seats_are_kept_only_for_who_could_be_seated_on_them() {
    let wide = || Some("wide/seed".to_owned());
    let labels = [("zone".to_owned(), "a".to_owned())];
    for (requires, is_good) in [
        ("{}", true),
        ("{labels: {zone: a}}", true),
        ("{labels: {zone: a}}", false),
        ("{memoryGib: 40}", true),
        ("{memoryGib: 40}", false),
    ] {
        let mut spare = offer("w2", 3);
        if is_good {
            (spare.labels, spare.memory_mib) = (labels.clone().into(), 40 * 1024);
        }
        let mut script = Waits { requires, spare, ..Waits::default() }.script();
        let told = format!("{requires} {is_good}");
        assert_eq!(script.kept_for(), wide().filter(|_| is_good), "{told}");
        assert_eq!(script.work("expert-1").gang().is_some(), !is_good, "{told}");
        let other = |at: &str| Offer { kind: "other".into(), ..offer(at, 1) };
        let again = script.clone();
        script.cordon("n2", false);
        script.attach_as(other("w3"));
        assert_ne!(script.kept_for(), wide(), "cordoned: {told}");
        let mut script = again;
        script.event(Event::WorkerDetached { worker: WorkerId("w2".into()) });
        script.attach_as(other("w3"));
        assert_ne!(script.kept_for(), wide(), "away: {told}");
    }
}

#[test]
fn nobody_waits_behind_itself_or_behind_who_wants_other_devices() {
    let mut script = Waits::default().script();
    let why = |script: &Script, run: &str| {
        let (run, seed) = (run.parse().unwrap(), WorkId::Model(ModelId::Seed));
        why_waiting(&script.state, &run, seed, script.now).unwrap().to_string()
    };
    assert_eq!(why(&script, "wide"), "needs 4 seats, 3 free");
    assert_eq!(script.why("expert-1"), "seed goes first");
    script.attach_as(Offer { kind: "other".into(), ..offer("w3", 2) });
    script.cordon("n3", false);
    script.apply("picky", 0, &[("seed: {ranks: 2}", "seed: {requires: {gpu: other}, ranks: 2}")]);
    seed_waits(&mut script, "picky");
    assert_eq!(
        why(&script, "picky"),
        "needs 2 seats, 0 free; one node is cordoned or in quarantine"
    );
}

#[test]
fn jobs_go_before_models_of_their_priority_and_after_those_of_a_higher() {
    for (priority, at) in [(0, None), (1, None), (-1, Some("w1:0"))] {
        let mut script = Script::trained_seed();
        script.apply("other", priority, &[]);
        script.attach("w1", 2, vec![]);
        let first = script.work("expert-0").gang().map(|gang| gang.seats[0].to_string());
        assert_eq!(first.as_deref(), at, "{priority}");
    }
}

#[test]
fn who_can_never_be_seated_keeps_nobody_behind_from_asking_others_to_leave() {
    let mut script = Script::trained_seed();
    script.attach("w1", 2, vec![]);
    let wide = [("seed: {ranks: 2}", "seed: {ranks: 4}"), ("microBatch: 64", "microBatch: 32")];
    script.apply("wide", 9, &wide);
    // Its job asks `expert-0` to leave; before that is gone, it is done.
    seed_waits(&mut script, "wide");
    script.exit("expert-0#1", 0, Outcome::Stopped);
    script.exit("expert-0#1", 1, Outcome::Stopped);
    assert!(matches!(script.work("expert-1").phase, Phase::Running(_)), "{}", script.told);
    script.told.clear();
    script.apply("urgent", 5, &[]);
    assert!(script.told.contains("stop clipart/expert-1#1 rank 0"), "{}", script.told);
}
