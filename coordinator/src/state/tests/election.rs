use std::time::{Duration, Instant};

use super::proxy::{Mode, Proxy};
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_vanishes_is_followed_within_ten_seconds_and_one_that_resigns_at_once() {
    if !etcd_server::is_here() {
        return;
    }
    let etcd = Etcd::start(1);
    let options = in_etcd(etcd.urls(), "/clade/a");
    let first = lead(&options).await;
    let second = open(&options).await.unwrap();
    let mut follow = second.follow();
    let following = tokio::spawn(async move {
        loop {
            follow.next().await;
        }
    });
    let vanished = Instant::now();
    drop(first);
    let second = second.campaign().await.unwrap();
    let took = vanished.elapsed();
    eprintln!("a vanished leader's lead was taken over after {took:?}");
    assert!(took > Duration::from_secs(3), "it led while the first one's lease lasted: {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");

    let third = open(&options).await.unwrap();
    let resigned = Instant::now();
    let (third, ()) = tokio::join!(third.campaign(), second.resign());
    let took = resigned.elapsed();
    eprintln!("a resigned leader's lead was taken over after {took:?}");
    assert_eq!(third.unwrap().term(), Term(3));
    assert!(took < Duration::from_secs(3), "{took:?}");
    following.abort();
}

/// The old leader's lease lives on and its clock says that it leads: only the guard stops it.
#[tokio::test(flavor = "multi_thread")]
async fn a_deposed_leader_writes_nothing_even_if_it_believes_that_it_leads() {
    if !etcd_server::is_here() {
        return;
    }
    let etcd = Etcd::start(1);
    let options = in_etcd(etcd.urls(), "/clade/a");
    let mut old = lead(&options).await;
    old.save(&[put("run/a", "old")]).await.unwrap();
    etcd.ctl(&["del", "/clade/a/leader"]);
    // Nobody else leads yet, and still it may not.
    let error = old.save(&[put("run/a", "orphan")]).await.unwrap_err();
    assert!(matches!(error, LeadError::Deposed { term: Term(1), .. }), "{error}");
    let mut new = lead(&options).await;
    assert_eq!(new.term(), Term(2));
    assert!(old.is_held(), "this test means nothing if it knows already");
    let error = old.save(&[put("run/a", "late"), put("run/b", "late")]).await.unwrap_err();
    assert!(matches!(error, LeadError::Deposed { term: Term(1), .. }), "{error}");
    assert_eq!(new.load().await.unwrap(), rows([("run/a", "old")]));
    new.save(&[put("run/a", "new")]).await.unwrap();
    assert_eq!(new.load().await.unwrap(), rows([("run/a", "new")]));
}

/// Cut off, it cannot be told; it stops by its own clock before anybody else can lead.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_stops_before_another_leads() {
    if !etcd_server::is_here() {
        return;
    }
    let etcd = Etcd::start(1);
    let proxy = Proxy::start(&etcd.urls()[0]).await;
    let mut old = lead(&in_etcd(vec![proxy.url()], "/clade/a")).await;
    let lost = old.lost();
    proxy.set(Mode::LoseRequests);
    let cut = Instant::now();
    let watching = tokio::spawn(async move {
        lost.cancelled().await;
        cut.elapsed()
    });
    let saving = tokio::spawn(async move {
        let error = old.save(&[put("run/a", "late")]).await.unwrap_err();
        assert!(matches!(error, LeadError::Deposed { .. }), "{error}");
        assert!(!old.is_held());
    });
    let mut new = lead(&in_etcd(etcd.urls(), "/clade/a")).await;
    let led = cut.elapsed();
    let stopped = watching.await.unwrap();
    eprintln!("cut off: the old leader stopped after {stopped:?}, the new one leads after {led:?}");
    assert!(stopped < led);
    assert!(led < Duration::from_secs(10), "{led:?}");
    saving.await.unwrap();
    assert_eq!(new.load().await.unwrap(), Rows::new());
}
