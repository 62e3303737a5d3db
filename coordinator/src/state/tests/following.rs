use super::proxy::{Mode, Proxy};
use super::*;

/// The next change that changes anything.
async fn any(follow: &mut Box<dyn Follow>) -> Change {
    loop {
        let change = follow.next().await;
        if !matches!(change, Change::Confirmed { .. }) {
            return change;
        }
    }
}

/// The next change that is not about who leads.
async fn next(follow: &mut Box<dyn Follow>) -> Change {
    loop {
        let change = any(follow).await;
        if !matches!(change, Change::Leader(_)) {
            return change;
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
    assert_eq!(any(&mut follow).await, first);
    for nth in 0..50 {
        let writes = vec![put("run/a", format!("{nth}")), put(&format!("work/a/{nth}"), "x")];
        lead.save(&writes).await.unwrap();
        lead.save(&[delete(&format!("work/a/{nth}"))]).await.unwrap();
        assert_eq!(any(&mut follow).await, Change::Writes(writes));
        assert_eq!(any(&mut follow).await, Change::Writes(vec![delete(&format!("work/a/{nth}"))]));
    }
    lead.resign().await;
    assert_eq!(any(&mut follow).await, Change::Leader(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_cut_off_catches_up_though_what_it_missed_is_compacted() {
    if !etcd_server::is_here() {
        return;
    }
    let etcd = Etcd::start(1);
    let mut lead = lead(&in_etcd(etcd.urls(), "/clade/a")).await;
    let proxy = Proxy::start(&etcd.urls()[0]).await;
    let mut follow = open(&in_etcd(vec![proxy.url()], "/clade/a")).await.unwrap().follow();
    assert!(matches!(next(&mut follow).await, Change::Anew { .. }));

    // Cut off for a while: it goes on where it was, or begins anew if that took too long.
    proxy.cut(Mode::LoseAnswers).await;
    lead.save(&[put("run/a", "1")]).await.unwrap();
    lead.save(&[put("run/a", "2")]).await.unwrap();
    proxy.set(Mode::Pass);
    let mut seen = Rows::new();
    while seen != rows([("run/a", "2")]) {
        match next(&mut follow).await {
            Change::Anew { rows, .. } => seen = rows,
            Change::Writes(writes) => writes.into_iter().for_each(|it| it.apply(&mut seen)),
            Change::Leader(_) | Change::Confirmed { .. } => (),
        }
    }

    // What it missed is compacted meanwhile.
    proxy.cut(Mode::LoseAnswers).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_confirmed_as_long_as_etcd_is_reached_and_no_longer() {
    if !etcd_server::is_here() {
        return;
    }
    let etcd = Etcd::start(1);
    let mut lead = lead(&in_etcd(etcd.urls(), "/clade/a")).await;
    let proxy = Proxy::start(&etcd.urls()[0]).await;
    let mut follow = open(&in_etcd(vec![proxy.url()], "/clade/a")).await.unwrap().follow();
    let confirmed = async |follow: &mut Box<dyn Follow>| loop {
        if let Change::Confirmed { as_of } = follow.next().await {
            return as_of;
        }
    };
    // Nothing changes, and yet it is known that nothing does.
    let mut last = confirmed(&mut follow).await;
    for _ in 0..2 {
        let next = confirmed(&mut follow).await;
        assert!(next > last && next.elapsed() < std::time::Duration::from_secs(2));
        last = next;
    }
    // Changes that follow one another fast are told, and confirmed between.
    for nth in 0..300 {
        lead.save(&[put("run/a", format!("{nth}"))]).await.unwrap();
    }
    let (mut told, saved) = (0, Instant::now());
    while last < saved {
        match follow.next().await {
            Change::Writes(_) => told += 1,
            Change::Confirmed { as_of } => last = as_of,
            Change::Anew { .. } | Change::Leader(_) => (),
        }
    }
    assert_eq!(told, 300, "a confirmation never runs ahead of what it confirms");
    proxy.cut(Mode::LoseAnswers).await;
    let cut = Instant::now();
    let patience = std::time::Duration::from_secs(6);
    let silent =
        tokio::time::timeout(patience, async { while confirmed(&mut follow).await <= cut {} });
    assert!(silent.await.is_err(), "confirmed by nobody");
    proxy.set(Mode::Pass);
    while confirmed(&mut follow).await <= cut {}
}
