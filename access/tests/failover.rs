//! A client of three coordinators of which one leads, and the leader changes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod scene;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clade_access::client::{Cluster, Credentials, Fault, LEADER, Patience, Turn};
use scene::{ask, open_stream, raw_call, until};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::{Code, Status};

const STATUS: &str = "/clade.v1.RunService/GetStatus";
const SESSION: &str = "/clade.v1.WorkerService/Session";

/// What each coordinator says of who leads, and how often any has said it.
type Leader = Arc<Mutex<(Option<String>, u32)>>;

/// Killed like a process: its runtime goes, and with it all of its connections.
struct Coordinator {
    url: String,
    runtime: Option<Runtime>,
}

impl Coordinator {
    fn start(address: &str, leader: &Leader) -> Self {
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (me, leader) = (url.clone(), Arc::clone(leader));
        let service = tower::service_fn(move |_: http::Request<Body>| {
            let mut leader = leader.lock().unwrap();
            leader.1 += 1;
            let answer = answer(&me, leader.0.clone());
            async { Ok::<_, std::convert::Infallible>(answer) }
        });
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let served = tonic::transport::Server::builder()
                .serve_with_incoming(service, TcpListenerStream::new(listener));
            served.await.unwrap();
        });
        Self { url, runtime: Some(runtime) }
    }

    fn kill(&mut self) {
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }

    fn address(&self) -> SocketAddr {
        self.url.strip_prefix("http://").unwrap().parse().unwrap()
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.kill();
    }
}

fn answer(me: &str, leader: Option<String>) -> http::Response<Body> {
    if leader.as_deref() != Some(me) {
        let mut status = Status::unavailable("another one leads, or nobody yet");
        if let Some(leader) = leader {
            status.metadata_mut().insert(LEADER, leader.parse().unwrap());
        }
        return status.into_http();
    }
    let status = Status::ok("").into_http::<Body>().into_parts().0.headers;
    let message = http_body_util::Full::new(bytes::Bytes::from_static(&[0; 5]));
    let body = http_body_util::BodyExt::with_trailers(message, async { Some(Ok(status)) });
    http::Response::builder()
        .header("content-type", "application/grpc")
        .header("asked-by", me)
        .header("asked-as", "leader")
        .body(Body::new(body))
        .unwrap()
}

fn three() -> (Leader, [Coordinator; 3], Cluster) {
    clade_access::install_crypto();
    let leader = Leader::default();
    let start = || Coordinator::start("127.0.0.1:0", &leader);
    let all = [start(), start(), start()];
    let urls: Vec<_> = all.iter().map(|it| it.url.clone()).collect();
    let cluster = Cluster::new(&urls, Credentials::none()).unwrap();
    (leader, all, cluster)
}

fn lead(leader: &Leader, url: &str) {
    leader.lock().unwrap().0 = Some(url.to_owned());
}

#[tokio::test]
async fn a_hint_leads_to_the_leader_and_it_is_remembered() {
    let (leader, all, cluster) = three();
    for coordinator in [&all[2], &all[1], &all[0]] {
        lead(&leader, &coordinator.url);
        let told = format!("{} as leader", coordinator.url);
        assert_eq!(ask(&cluster, STATUS).await.unwrap(), told);
        assert_eq!(cluster.url(), coordinator.url);
    }
}

#[tokio::test]
async fn a_hint_leads_to_a_leader_that_was_not_named() {
    let (leader, all, _) = three();
    lead(&leader, &all[2].url);
    let cluster = Cluster::new(&[all[0].url.clone()], Credentials::none()).unwrap();
    assert_eq!(ask(&cluster, STATUS).await.unwrap(), format!("{} as leader", all[2].url));
    // It dies, and another is elected.
    let [_first, second, mut third] = all;
    third.kill();
    lead(&leader, &second.url);
    assert_eq!(ask(&cluster, STATUS).await.unwrap(), format!("{} as leader", second.url));
}

#[tokio::test]
async fn a_dead_leader_is_left_as_soon_as_another_leads_also_while_standbys_name_the_dead_one() {
    let (leader, mut all, cluster) = three();
    lead(&leader, &all[0].url);
    ask(&cluster, STATUS).await.unwrap();
    all[0].kill();
    // Everybody still believes in the dead one: a patient call waits for the election.
    let failed = ask(&cluster, STATUS).await.unwrap_err();
    assert!(matches!(failed.fault(), Fault::NotLeading | Fault::Unreachable), "{failed}");
    let elect = async {
        // Longer than a call waits where nobody answers at all.
        let before = leader.lock().unwrap().1;
        until(|| async { leader.lock().unwrap().1 >= before + 12 }).await;
        lead(&leader, &all[2].url);
        Instant::now()
    };
    let asked = async {
        let told = cluster.call(Patience::Few, |link| raw_call(link, STATUS)).await;
        (told, Instant::now())
    };
    let (elected, (told, answered)) = tokio::join!(elect, asked);
    assert_eq!(told.unwrap(), format!("{} as leader", all[2].url));
    let late = answered.duration_since(elected);
    assert!(late < Duration::from_secs(2), "{late:?}");
}

#[tokio::test]
async fn nobody_there_is_told_soon_and_a_lone_restarted_coordinator_is_found_again() {
    let (leader, mut all, cluster) = three();
    for coordinator in &mut all {
        coordinator.kill();
    }
    let began = Instant::now();
    let failed = cluster.call(Patience::Few, |link| raw_call(link, STATUS)).await.unwrap_err();
    assert_eq!((failed.fault(), failed.status().code()), (Fault::Unreachable, Code::Unavailable));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    lead(&leader, &all[1].url);
    let address = all[1].address().to_string();
    let endless = cluster.call(Patience::Endless, |link| raw_call(link, STATUS));
    let again = async { Coordinator::start(&address, &leader) };
    let (told, _again) = tokio::join!(endless, again);
    assert_eq!(told.unwrap(), format!("{} as leader", all[1].url));
}

#[tokio::test]
async fn a_stream_is_led_to_the_leader_by_what_refused_it() {
    let (leader, all, cluster) = three();
    lead(&leader, &all[2].url);
    let opened = cluster.next_channel().await.unwrap();
    assert_eq!(opened.url, all[0].url);
    let refused = raw_call(opened.link, SESSION).await.unwrap_err();
    assert_eq!(cluster.lost(&opened.url, Some(&refused)), Turn::Leader);
    let opened = cluster.next_channel().await.unwrap();
    assert_eq!(opened.url, all[2].url);
    let mut orders = open_stream(opened.link, SESSION).await;
    assert_eq!(orders.message().await.unwrap(), Some(()));
    cluster.heard(&opened.url);
    assert_eq!(cluster.lost(&opened.url, None), Turn::Next);
    assert_eq!(cluster.next_channel().await.unwrap().url, all[0].url);
}

#[tokio::test]
async fn a_token_goes_to_no_address_where_others_can_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "clade_secret").unwrap();
    let flags = clade_access::client::ConnectFlags {
        coordinator: vec!["http://coordinator.example:7600".to_owned()],
        ca: None,
        certificate: None,
        key: None,
        token_file: Some(file),
    };
    let error = Cluster::from_flags(&flags).unwrap_err().to_string();
    assert!(error.starts_with("will not send the token to http://coordinator.example:7600"));
    // Nor does a hint lead it there.
    let leader = Leader::default();
    let standby = Coordinator::start("127.0.0.1:0", &leader);
    lead(&leader, "http://coordinator.example:7600");
    let flags =
        clade_access::client::ConnectFlags { coordinator: vec![standby.url.clone()], ..flags };
    let cluster = Cluster::from_flags(&flags).unwrap();
    let failed = ask(&cluster, STATUS).await.unwrap_err();
    assert!(failed.status().message().starts_with("will not send the token"), "{failed}");
    assert!(!format!("{cluster:?}").contains("clade_secret"));
}
