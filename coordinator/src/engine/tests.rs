//! An engine on a real file, with events that no door would let through.

use clade_core::schedule::Offer;

use super::*;
use crate::question::Question;
use crate::state::{self, Options, options::Place};

fn run_named(name: &str, store: &str) -> Box<RunSpec> {
    let demo = include_str!("../../../deploy/demo/run.yaml");
    let document = demo.replace("name: clipart", &format!("name: {name}"));
    let mut spec = RunSpec::parse(&document).unwrap();
    spec.spec.store = store.to_owned();
    Box::new(spec)
}

async fn apply(engine: &Engine, spec: Box<RunSpec>) -> Result<v1::ApplyEffect, Status> {
    engine.ask(|reply| Command::Apply { spec, tars: 1, queue: true, reply }).await.unwrap()
}

/// Attaches a worker with this label; why not, if it is not taken.
async fn attach(engine: &Engine, worker: &str, label: &str) -> Option<NotTaken> {
    let worker = WorkerId(worker.to_owned());
    let (sender, _orders) = mpsc::channel(8);
    let orders = Orders { sender, hang_up: CancellationToken::new() };
    let labels = [("label".to_owned(), label.to_owned())].into();
    let offer = Offer { slots: 1, labels, ..Offer::default() };
    let (withdrawn, ranks) = (BTreeMap::new(), Vec::new());
    let event = Event::WorkerAttached { worker: worker.clone(), offer, withdrawn, ranks };
    let (refused, why) = oneshot::channel();
    engine.send(Command::Attach { worker, stream: 1, orders, event, refused }).await.unwrap();
    why.await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_to_be_saved_is_refused_and_the_engine_goes_on_from_what_was_before() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        place: Place::Folder(folder.path().to_owned()),
        cluster: "clade".to_owned(),
        advertise: "http://a".to_owned(),
    };
    let mut lead = state::open(&options).await.unwrap().campaign().await.unwrap();
    let state = codec::decode(&lead.load().await.unwrap(), lead.term()).unwrap();
    let (engine, task) = new(lead, Limits::default(), state, Metrics::new(&[]));
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let running = tokio::spawn(async move { task.run(&stopped).await.map(|_| ()) });

    let large = format!("file:///{}", "x".repeat(2_000_000));
    let refused = apply(&engine, run_named("large", &large)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
    assert!(refused.message().contains("`run/large` would take 20"), "{refused}");
    let refused = attach(&engine, "liar", &large).await;
    assert!(matches!(refused, Some(NotTaken::TooLarge { .. })), "{refused:?}");

    assert_eq!(
        apply(&engine, run_named("small", "file:///s")).await.unwrap(),
        v1::ApplyEffect::Created
    );
    assert!(attach(&engine, "honest", "a").await.is_none());
    let ask = |reply| {
        Command::Ask(Question::Status {
            run: None,
            page: crate::question::Page { size: 0, after: None },
            reply,
        })
    };
    let status = engine.ask(ask).await.unwrap();
    let runs: Vec<_> = status.status.runs.iter().map(|run| &*run.run).collect();
    let workers: Vec<_> = status.status.workers.iter().map(|it| &*it.worker).collect();
    assert_eq!((runs, workers), (vec!["small"], vec!["honest"]));
    stop.cancel();
    running.await.unwrap().expect("it ended because it was told to");
}
