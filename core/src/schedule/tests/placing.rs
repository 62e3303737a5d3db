//! Where gangs sit: what they require, what was withdrawn, and who may take seats kept for another.

use super::*;

impl Script {
    /// A worker unlike the others.
    fn join_with(&mut self, worker: &str, slots: u32, change: impl FnOnce(&mut Offer)) {
        let mut offer = offer(worker, slots);
        change(&mut offer);
        let (worker, withdrawn) = (WorkerId(worker.into()), BTreeMap::new());
        self.event(Event::WorkerAttached { worker, offer, withdrawn, ranks: vec![] });
    }

    pub(super) fn sits_at(&self, work: &str) -> Vec<String> {
        let gang = self.work(work).gang();
        gang.into_iter().flat_map(|it| &it.seats).map(ToString::to_string).collect()
    }
}

fn demanding(requires: &str) -> Script {
    let gang = format!("expert: {{requires: {requires}, ranks: 2");
    Script::trained(spec_with(&[("expert: {ranks: 2", &gang)]))
}

#[test]
fn a_gang_sits_only_on_devices_of_the_kind_it_requires() {
    let mut script = demanding("{gpu: H100}");
    script.join_with("w1", 2, |offer| offer.kind = "NVIDIA A100 40GB".into());
    assert_eq!(script.why("expert-0"), "needs 2 seats with gpu H100, the cluster has 0");
    // One seat of each kind makes no gang.
    script.join_with("w2", 1, |offer| offer.kind = "NVIDIA H100 80GB".into());
    assert_eq!(script.sits_at("expert-0"), Vec::<String>::new());
    script.join_with("w3", 1, |offer| offer.kind = "NVIDIA H100 80GB".into());
    assert_eq!(script.sits_at("expert-0"), ["w2:0", "w3:0"]);
}

#[test]
fn a_gang_sits_only_where_there_is_the_memory_it_requires() {
    let mut script = demanding("{memoryGib: 40}");
    script.join_with("w1", 2, |offer| offer.memory_mib = 40 * 1024 - 1);
    assert_eq!(script.sits_at("expert-0"), Vec::<String>::new());
    script.join_with("w2", 2, |offer| offer.memory_mib = 40 * 1024);
    assert_eq!(script.sits_at("expert-0"), ["w2:0", "w2:1"]);
    assert_eq!(script.sits_at("expert-1"), Vec::<String>::new());
}

#[test]
fn a_gang_sits_only_at_workers_with_every_label_it_requires() {
    let mut script = demanding("{labels: {zone: a, tier: paid}}");
    let labelled = |all: &[(&str, &str)]| -> BTreeMap<String, String> {
        all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    script.join_with("w1", 2, |offer| offer.labels = labelled(&[("zone", "a")]));
    script.join_with("w2", 2, |offer| offer.labels = labelled(&[("zone", "a"), ("tier", "free")]));
    assert_eq!(script.sits_at("expert-0"), Vec::<String>::new());
    assert!(script.why("expert-0").ends_with(", the cluster has 0"), "{}", script.why("expert-0"));
    let all = [("zone", "a"), ("tier", "paid"), ("rack", "7")];
    script.join_with("w3", 2, |offer| offer.labels = labelled(&all));
    assert_eq!(script.sits_at("expert-0"), ["w3:0", "w3:1"]);
    assert_eq!(script.why("expert-1"), "needs 2 seats, 4 free");
}

#[test]
fn the_widest_gang_that_fits_divides_the_batch() {
    let mut script = Script::new();
    // Twelve micro-batches.
    let batches = [("globalBatch: 128", "globalBatch: 96"), ("microBatch: 64", "microBatch: 8")];
    let wide = [&batches[..], &[("seed: {ranks: 2}", "seed: {ranks: 12}")]].concat();
    for (slots, fits) in [(5, 4), (2, 6), (4, 6)] {
        script.attach(&format!("w{slots}"), slots, vec![]);
        assert_eq!(admit(&script.state, &spec_with(&wide)).unwrap_err().fits, Some(fits));
    }
    script.attach("w1", 1, vec![]);
    assert_eq!(admit(&script.state, &spec_with(&wide)), Ok(()));
}

#[test]
fn a_withdrawn_device_lets_its_gang_save_and_leave_and_is_never_used_again() {
    let mut script = Script::trained_seed();
    script.attach("w1", 2, vec![]);
    script.attach("w2", 1, vec![]);
    script.told.clear();
    let (worker, reason) = (WorkerId("w1".into()), "XID 79".to_owned());
    script.event(Event::DeviceWithdrawn { worker, slot: 1, reason });
    script.exit("expert-0#1", 0, Outcome::Stopped);
    script.exit("expert-0#1", 1, Outcome::Stopped);
    script.inspected("expert-0#1", Some(301));
    script.check(&expect![[r#"
        stop clipart/expert-0#1 rank 0 on w1:0, save: true
        stop clipart/expert-0#1 rank 1 on w1:1, save: true
        start clipart/expert-1#1 rank 0 on w1:0 from seed gang-1 step-288
        start clipart/expert-1#1 rank 1 on w2:0 from seed gang-1 step-288
        inspect clipart/expert-0#1
    "#]]);
    script.attach("w3", 1, vec![]);
    assert_eq!(script.sits_at("expert-0"), Vec::<String>::new());
    assert_eq!((script.work("expert-0").strikes, script.work("expert-0").restarts), (0, 0));
}

/// `expert-0` holds two seats for another hundred seconds at ten seconds a step; two seats at `w2` are
/// free; the seed of the run `wide` waits for all four.
fn kept() -> Script {
    let mut script = Script::trained_seed();
    let changes = [
        ("name: clipart", "name: wide"),
        ("seed: {ranks: 2}", "seed: {ranks: 4}"),
        ("microBatch: 64", "microBatch: 32"),
        // The longest of all goes first.
        ("seedSteps: 288", "seedSteps: 5000"),
    ];
    script.event(Event::Applied { spec: Box::new(spec_with(&changes)), tars: 1 });
    for (id, work) in &mut script.state.runs.get_mut(&"wide".parse().unwrap()).unwrap().works {
        if *id != WorkId::Model(ModelId::Seed) {
            work.phase = if id.model().is_some() { Phase::Waiting } else { Phase::Done };
        }
    }
    script.state.index = Index::of(&script.state);
    script.attach("w1", 2, vec![]);
    for tick in 0..4 {
        script.at(10_000 * (tick + 1));
        script.steps("expert-0#1", 419 + tick);
    }
    script.attach("w2", 2, vec![]);
    script.told.clear();
    script
}

#[test]
fn seats_kept_for_a_wide_gang_are_not_given_to_who_would_still_hold_them_then() {
    let script = kept();
    assert_eq!(script.sits_at("expert-1"), Vec::<String>::new());
    assert_eq!(script.why("expert-1"), "seed goes first");
}

#[test]
fn seats_kept_for_a_wide_gang_are_lent_to_who_is_done_before_they_suffice() {
    let mut script = kept();
    // Less urgent: it is asked after the seats are kept.
    let changes = [("name: clipart", "name: short"), ("  gangs:", "  priority: -1\n  gangs:")];
    let short = spec_with(&changes);
    script.event(Event::Applied { spec: Box::new(short), tars: 2 });
    script.check(&expect![[r#"
        start short/index.0#1 rank 0 on w2:0 from nothing
        start short/index.1#1 rank 0 on w2:1 from nothing
    "#]]);
}

#[test]
fn a_wide_gang_is_seated_once_the_seats_kept_for_it_suffice() {
    let mut script = kept();
    script.commit("expert-0#1", 432);
    script.exit("expert-0#1", 0, done());
    script.exit("expert-0#1", 1, done());
    script.check(&expect![[r#"
        inspect clipart/expert-0#1
        start wide/seed#1 rank 0 on w1:0 from nothing
        start wide/seed#1 rank 1 on w1:1 from nothing
        start wide/seed#1 rank 2 on w2:0 from nothing
        start wide/seed#1 rank 3 on w2:1 from nothing
    "#]]);
}
