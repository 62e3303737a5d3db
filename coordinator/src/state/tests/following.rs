use super::proxy::{Mode, Proxy};
use super::*;

/// The next change that is not about who leads.
async fn next(follow: &mut Box<dyn Follow>) -> Change {
    loop {
        match follow.next().await {
            Change::Leader(_) => (),
            change => return change,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_is_told_every_change_in_order_and_who_leads() {
    if !etcd_server::is_here() {
        return;
    }
    let etcd = Etcd::start(1);
    let options = in_etcd(etcd.urls(), "/clade/a");
    let mut lead = lead(&options).await;
    lead.save(&[put("run/a", "0")]).await.unwrap();
    let mut follow = open(&options).await.unwrap().follow();
    let leader = Some(Leader { address: "http://a".to_owned(), term: Term(1) });
    let first = Change::Anew { rows: rows([("run/a", "0")]), leader };
    assert_eq!(follow.next().await, first);
    for nth in 0..50 {
        let writes = vec![put("run/a", format!("{nth}")), put(&format!("work/a/{nth}"), "x")];
        lead.save(&writes).await.unwrap();
        lead.save(&[delete(&format!("work/a/{nth}"))]).await.unwrap();
        assert_eq!(follow.next().await, Change::Writes(writes));
        assert_eq!(follow.next().await, Change::Writes(vec![delete(&format!("work/a/{nth}"))]));
    }
    lead.resign().await;
    assert_eq!(follow.next().await, Change::Leader(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_missed_changes_gets_them_and_one_that_missed_a_compaction_lists_anew() {
    if !etcd_server::is_here() {
        return;
    }
    let etcd = Etcd::start(1);
    let mut lead = lead(&in_etcd(etcd.urls(), "/clade/a")).await;
    let proxy = Proxy::start(&etcd.urls()[0]).await;
    let mut follow = open(&in_etcd(vec![proxy.url()], "/clade/a")).await.unwrap().follow();
    assert!(matches!(next(&mut follow).await, Change::Anew { .. }));

    // A short cut: it goes on where it was.
    proxy.set(Mode::LoseAnswers);
    lead.save(&[put("run/a", "1")]).await.unwrap();
    lead.save(&[put("run/a", "2")]).await.unwrap();
    let reading = tokio::spawn(async move {
        let two = [next(&mut follow).await, next(&mut follow).await];
        (two, follow)
    });
    while proxy.lost() == 0 {
        tokio::task::yield_now().await;
    }
    proxy.set(Mode::Pass);
    let (two, mut follow) = reading.await.unwrap();
    let expected = ["1", "2"].map(|value| Change::Writes(vec![put("run/a", value)]));
    let anew = matches!(&two[0], Change::Anew { rows, .. } if rows.len() == 1);
    assert!(two == expected || anew, "{two:?}");

    // What it missed is compacted meanwhile.
    proxy.set(Mode::LoseRequests);
    let reading = tokio::spawn(async move {
        loop {
            if let Change::Anew { rows, .. } = next(&mut follow).await {
                return (rows, follow);
            }
        }
    });
    for nth in 0..20 {
        lead.save(&[put("run/a", format!("{nth}")), put("run/b", "x")]).await.unwrap();
    }
    let said = etcd.ctl(&["get", "/clade/a/marker", "-w", "json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    etcd.ctl(&["compact", &said["header"]["revision"].to_string()]);
    proxy.set(Mode::Pass);
    let (found, mut follow) = reading.await.unwrap();
    assert_eq!(found, rows([("run/a", "19"), ("run/b", "x")]));
    lead.save(&[delete("run/b")]).await.unwrap();
    assert_eq!(next(&mut follow).await, Change::Writes(vec![delete("run/b")]));
}
