//! One suite of claims for both backends, and those that only etcd can break.

mod election;
#[path = "../../tests/cluster/etcd.rs"]
mod etcd_server;
mod following;
mod outages;
#[path = "../../tests/cluster/proxy.rs"]
mod proxy;
mod refusals;

use std::path::Path;

use super::options::{EtcdPlace, Place};
use super::*;
use etcd_server::Etcd;

fn put(key: &str, value: impl AsRef<[u8]>) -> Write {
    Write::Put { key: key.to_owned(), value: value.as_ref().to_vec() }
}

fn delete(key: &str) -> Write {
    Write::Delete { key: key.to_owned() }
}

fn rows<const N: usize>(rows: [(&str, &str); N]) -> Rows {
    rows.into_iter().map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec())).collect()
}

fn in_folder(folder: &Path) -> Options {
    let place = Place::Folder(folder.to_owned());
    Options { place, cluster: "clade".to_owned(), advertise: "http://a".to_owned() }
}

fn in_etcd(urls: Vec<String>, prefix: &str) -> Options {
    let prefix = prefix.to_owned();
    let place = EtcdPlace { urls, prefix, ca: None, identity: None, user: None };
    let place = Place::Etcd(place);
    Options { place, cluster: "clade".to_owned(), advertise: "http://a".to_owned() }
}

async fn lead(options: &Options) -> Box<dyn Lead> {
    open(options).await.unwrap().campaign().await.unwrap()
}

/// The claims that any backend must meet, each in a place of its own.
async fn conforms(place: impl Fn(&str) -> Options) {
    what_was_saved_is_loaded_by_the_next_leader(&place("saved")).await;
    the_term_grows_with_every_lead(&place("term")).await;
    a_transaction_too_large_is_refused_before_anything_is_sent(&place("large")).await;
    a_place_of_another_cluster_is_refused(&place("other")).await;
}

async fn what_was_saved_is_loaded_by_the_next_leader(options: &Options) {
    let mut first = lead(options).await;
    assert_eq!(first.load().await.unwrap(), Rows::new());
    first.save(&[put("run/a", "1"), put("work/a/x", "2"), put("worker/w", "3")]).await.unwrap();
    first.save(&[put("run/a", "4"), delete("worker/w"), delete("worker/never")]).await.unwrap();
    first.save(&[]).await.unwrap();
    let expected = rows([("run/a", "4"), ("work/a/x", "2")]);
    assert_eq!(first.load().await.unwrap(), expected);
    first.resign().await;
    assert_eq!(lead(options).await.load().await.unwrap(), expected);
}

async fn the_term_grows_with_every_lead(options: &Options) {
    for term in 1..4 {
        let lead = lead(options).await;
        assert_eq!(lead.term(), Term(term));
        assert!(lead.is_held() && !lead.lost().is_cancelled());
        lead.resign().await;
    }
}

async fn a_transaction_too_large_is_refused_before_anything_is_sent(options: &Options) {
    let mut lead = lead(options).await;
    let many: Vec<Write> = (0..=MOST_KEYS).map(|nth| put(&format!("k{nth:03}"), "v")).collect();
    let error = lead.save(&many).await.unwrap_err();
    assert!(matches!(error, LeadError::TooManyKeys { keys: 101 }), "{error}");
    let error = lead.save(&[put("k", vec![b'v'; MOST_BYTES])]).await.unwrap_err();
    assert!(matches!(error, LeadError::TooLarge { .. }), "{error}");
    assert_eq!(lead.load().await.unwrap(), Rows::new());
    // Just as much as is allowed goes through.
    lead.save(&many[..MOST_KEYS]).await.unwrap();
    lead.save(&[put("k", vec![b'v'; MOST_BYTES - 1])]).await.unwrap();
    assert_eq!(lead.load().await.unwrap().len(), MOST_KEYS + 1);
    lead.resign().await;
}

async fn a_place_of_another_cluster_is_refused(options: &Options) {
    lead(options).await.resign().await;
    let stranger = Options { cluster: "stranger".to_owned(), ..options.clone() };
    let error = open(&stranger).await.err().unwrap().to_string();
    assert!(error.contains("belongs to the cluster `clade`"), "{error}");
    assert!(error.contains("--cluster clade"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_backend_conforms() {
    let folder = tempfile::tempdir().unwrap();
    conforms(|name| in_folder(&folder.path().join(name))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_conforms_with_one_member() {
    if etcd_server::is_here() {
        let etcd = Etcd::start(1);
        conforms(|name| in_etcd(etcd.urls(), &format!("/clade/{name}"))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_conforms_with_three_members() {
    if etcd_server::is_here() {
        let etcd = Etcd::start(3);
        conforms(|name| in_etcd(etcd.urls(), &format!("/clade/{name}"))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_held_is_refused_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let _held = open(&in_folder(folder.path())).await.unwrap();
    let error = open(&in_folder(folder.path())).await.err().unwrap().to_string();
    assert!(error.contains("state.redb is held by another coordinator"), "{error}");
}

/// Files from before stores had an identity.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_format_0_is_taken_over_with_its_term() {
    let folder = tempfile::tempdir().unwrap();
    {
        let table = redb::TableDefinition::<&str, &[u8]>::new("objects");
        let database = redb::Database::create(folder.path().join("state.redb")).unwrap();
        let writing = database.begin_write().unwrap();
        let mut open = writing.open_table(table).unwrap();
        open.insert("term", b"6".as_slice()).unwrap();
        open.insert("worker/w1", b"{}".as_slice()).unwrap();
        drop(open);
        writing.commit().unwrap();
    }
    let options = in_folder(folder.path());
    for term in [7, 8] {
        let mut lead = lead(&options).await;
        assert_eq!(lead.term(), Term(term));
        assert_eq!(lead.load().await.unwrap(), rows([("worker/w1", "{}")]));
    }
}
