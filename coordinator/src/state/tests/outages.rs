use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::proxy::{Mode, Proxy};
use super::*;

/// Rounds of a lost request or a lost answer.
const ROUNDS: u32 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_whose_outcome_was_lost_takes_effect_exactly_once() {
    if !etcd_server::is_here() {
        return;
    }
    let etcd = Etcd::start(1);
    let proxy = Proxy::start(&etcd.urls()[0]).await;
    let options = in_etcd(vec![proxy.url()], "/clade/a");
    let mut lead = lead(&options).await;
    let mut expected = Rows::new();
    let mut applied_unheard = 0;
    for round in 0..ROUNDS {
        let mode = if round % 2 == 0 { Mode::LoseAnswers } else { Mode::LoseRequests };
        let (once, again) = (format!("once/{round:02}"), format!("{round}"));
        let writes = [put(&once, "x"), put("again", again)];
        let heal = async {
            // When the connection is cut, etcd has long done what it was told.
            proxy.cut(mode).await;
            let key = format!("/clade/a/rows/{once}");
            let is_there = !etcd.ctl(&["get", &key, "--keys-only"]).trim().is_empty();
            proxy.set(Mode::Pass);
            is_there
        };
        let (saved, was_there) = tokio::join!(lead.save(&writes), heal);
        saved.unwrap();
        let renewed = Instant::now();
        applied_unheard += u32::from(was_there);
        writes.into_iter().for_each(|write| write.apply(&mut expected));
        // The lease is renewed over the same proxy and must not run out.
        while renewed.elapsed() < Duration::from_millis(800) {
            lead.load().await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(lead.load().await.unwrap(), expected);
    eprintln!("{applied_unheard} of {ROUNDS} transactions took effect unheard");
    assert!(applied_unheard > 0, "no answer was lost, so this showed nothing");
    assert!(applied_unheard < ROUNDS, "no request was lost, so this showed little");
    let said = etcd.ctl(&["get", "/clade/a/rows/once/", "--prefix", "-w", "json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let written = said["kvs"].as_array().unwrap();
    assert_eq!(written.len(), ROUNDS as usize);
    assert!(written.iter().all(|row| row["version"] == 1), "written twice: {written:#?}");
    assert_eq!(lead.term(), Term(1), "it never stepped down");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_member_of_three_that_stalls_or_dies_costs_few_seconds_and_no_row() {
    if !etcd_server::is_here() {
        return;
    }
    let mut etcd = Etcd::start(3);
    let options = in_etcd(etcd.urls(), "/clade/a");
    let mut lead = lead(&options).await;
    for (what, leads, stalls) in [
        ("the leading member stalls for 8 s", true, 8),
        ("a following member stalls for 3 s", false, 3),
        ("the leading member is killed", true, 0),
    ] {
        let leader = etcd.leader();
        let member = if leads { leader } else { (leader + 1) % 3 };
        if stalls > 0 {
            etcd.signal(member, Signal::SIGSTOP);
        } else {
            etcd.kill(member);
        }
        let (began, mut slowest) = (Instant::now(), Duration::ZERO);
        let mut saves = 0_u32;
        while began.elapsed() < Duration::from_secs(stalls.max(4)) {
            let asked = Instant::now();
            lead.save(&[put("run/a", format!("{saves}"))]).await.unwrap();
            slowest = slowest.max(asked.elapsed());
            saves += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        eprintln!("{what}: {saves} saves, the slowest took {slowest:?}");
        if stalls > 0 {
            etcd.signal(member, Signal::SIGCONT);
            etcd.wait_until_healthy();
        }
        // Etcd before 3.4.28 revokes every lease when a stalled leader wakes: then somebody leads anew.
        if let Err(error) = lead.save(&[put("run/b", what)]).await {
            eprintln!("{what}: afterwards {error}");
            assert!(leads && stalls > 0, "{error}");
            lead = super::lead(&options).await;
            let last = (saves - 1).to_string();
            assert_eq!(lead.load().await.unwrap()["run/a"], last.as_bytes());
        }
        assert!(slowest < Duration::from_secs(5), "{what}: {slowest:?}");
    }
    assert!(lead.is_held());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_is_full_is_waited_for_and_the_lead_is_kept() {
    if !etcd_server::is_here() {
        return;
    }
    let etcd = Etcd::start_with(1, None, &["--quota-backend-bytes=6000000"]);
    let mut lead = lead(&in_etcd(etcd.urls(), "/clade/a")).await;
    lead.save(&[put("run/a", "before")]).await.unwrap();
    let junk = "x".repeat(100_000);
    let full = (0..1000).find(|_| etcd.try_ctl(&["put", "/junk", &junk]).is_err());
    assert!(full.is_some(), "6 MB of quota cannot take 100 MB");

    let writes = [put("run/a", "while it was full")];
    {
        // Dropping a save half way would lose the lead.
        let mut saving = std::pin::pin!(lead.save(&writes));
        let early = tokio::time::timeout(Duration::from_secs(8), saving.as_mut()).await;
        assert!(early.is_err(), "{early:?} while etcd was full");
        let said = etcd.ctl(&["get", "/junk", "--keys-only", "-w", "json"]);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        etcd.ctl(&["compact", "--physical", &said["header"]["revision"].to_string()]);
        etcd.ctl(&["defrag"]);
        etcd.ctl(&["alarm", "disarm"]);
        saving.await.unwrap();
    }
    assert!(lead.is_held());
    assert_eq!(lead.load().await.unwrap(), rows([("run/a", "while it was full")]));
}
