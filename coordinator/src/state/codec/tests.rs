use clade_core::ids::{Millis, WorkerId};
use clade_core::schedule::{Event, Limits, Offer, Phase, step};

use super::*;
use crate::state::format::{FORMAT, migrate};

fn attach(name: &str) -> Event {
    let offer = Offer {
        node: NodeName("n1".to_owned()),
        host: "host".to_owned(),
        domain: "rack".to_owned(),
        pid: 1,
        slots: 2,
        kind: "cpu".to_owned(),
        secret: "5e".to_owned(),
        ..Offer::default()
    };
    let (worker, withdrawn) = (WorkerId(name.to_owned()), BTreeMap::new());
    Event::WorkerAttached { worker, offer, withdrawn, ranks: vec![] }
}

/// A state in which something of everything is under way, and its rows.
fn busy() -> (State, Rows) {
    let document = include_str!("../../../../deploy/demo/run.yaml");
    let spec = Box::new(clade_core::spec::RunSpec::parse(document).unwrap());
    let gone = Event::WorkerLeft { worker: WorkerId("w2".to_owned()) };
    let applied = Event::Applied { spec, tars: 3 };
    let (mut state, mut rows) = (State::default(), Rows::new());
    state.term = Term(7);
    let cordoned = Event::NodeCordoned {
        node: NodeName("n1".to_owned()),
        reason: "fan".to_owned(),
        drain: false,
    };
    for event in [attach("w1"), attach("w2"), applied, gone, cordoned] {
        let effects = step(&mut state, Limits::default(), Millis(5), event);
        for write in encode(&state, &effects.changed) {
            write.apply(&mut rows);
        }
    }
    (state, rows)
}

#[test]
fn what_was_encoded_change_by_change_decodes_to_the_same_state() {
    let (state, rows) = busy();
    let read = decode(&rows, Term(7)).unwrap();
    assert_eq!((&read.runs, &read.nodes), (&state.runs, &state.nodes));
    assert_eq!(read.workers, state.workers);
    assert!(state.runs.values().next().unwrap().works.values().any(|work| work.gang().is_some()));
    assert!(!rows.contains_key("worker/w2"));
}

#[test]
fn a_row_of_no_known_kind_is_refused_by_name() {
    let rows = Rows::from([("riddle/1".to_owned(), vec![])]);
    let error = decode(&rows, Term(1)).unwrap_err().to_string();
    assert!(error.contains("`riddle/1`"), "{error}");
}

/// Rows as a file has them: JSON by key.
fn dump(rows: &Rows) -> String {
    let json = rows
        .iter()
        .map(|(key, value)| (key, serde_json::from_slice::<serde_json::Value>(value).unwrap()));
    let json: BTreeMap<_, _> = json.collect();
    serde_json::to_string_pretty(&json).unwrap() + "\n"
}

fn undump(text: &str) -> Rows {
    let json: BTreeMap<String, serde_json::Value> = serde_json::from_str(text).unwrap();
    json.into_iter().map(|(key, value)| (key, serde_json::to_vec(&value).unwrap())).collect()
}

/// State that an older program wrote is kept as files, one a format, and never made anew.
#[test]
fn state_of_every_format_so_far_loads() {
    for (format, text) in [
        (0, include_str!("../formats/format-0.json")),
        (1, include_str!("../formats/format-1.json")),
    ] {
        let mut once = undump(text);
        // A leader may die after any number of transactions: its successor goes on.
        for write in migrate(format, &once).into_iter().take(9) {
            write.apply(&mut once);
        }
        let mut rows = once;
        let writes = migrate(format, &rows);
        assert!(format < FORMAT || writes.is_empty());
        for write in writes {
            write.apply(&mut rows);
        }
        let state = decode(&rows, Term(7)).unwrap();
        assert_eq!(state.workers.keys().map(|id| id.0.as_str()).collect::<Vec<_>>(), ["w1"]);
        let run = state.runs.values().next().unwrap();
        assert_eq!(run.name().to_string(), "clipart");
        let seated = run.works.values().filter(|work| work.gang().is_some()).count();
        assert_eq!((run.works.len(), seated), (29, 2));
        assert!(run.works.values().any(|work| work.phase == Phase::Waiting));
    }
}

#[test]
fn what_is_written_today_is_what_the_newest_kept_format_has() {
    let (_, rows) = busy();
    let kept = include_str!("../formats/format-1.json");
    assert_eq!(
        dump(&rows),
        kept,
        "rows changed: count FORMAT up, teach `migrate` the way, and keep another file"
    );
}
