//! Input tars in a bucket are found as those in a folder are.

use super::proxy::{Proxy, drawn};
use super::server::{Server, options};
use crate::{Buckets, Retry, find_inputs_in};

#[tokio::test]
async fn tars_in_a_bucket_are_found_by_name_by_braces_and_by_glob() {
    let Some(server) = Server::shared() else { return };
    let bucket = server.new_bucket().await;
    let seed = 4;
    let proxy = Proxy::start(server.address, drawn(seed)).await;
    let mut options = options(proxy.address).with_retry(Retry {
        tries: 10,
        first_pause: std::time::Duration::from_millis(2),
        ..Retry::default()
    });
    options.stall_timeout = std::time::Duration::from_secs(1);
    let buckets = Buckets::new(options);
    let root = format!("s3://{bucket}");
    for name in [
        "set/x-08.tar",
        "set/x-09.tar",
        "set/x-10.tar",
        "set/deep/y.tar",
        "set/x.txt",
        "set-2/z.tar",
    ] {
        let (store, key) = buckets.open_object(&format!("{root}/{name}")).unwrap();
        store.put(&key, name).await.unwrap();
    }
    let found = async |pattern: &str| {
        let found = find_inputs_in(&format!("{root}/{pattern}"), &buckets).await;
        let found = found.map_err(|error| error.to_string())?;
        let names = found.tars.iter().map(|tar| {
            let name = tar.uri.strip_prefix(&format!("{root}/")).unwrap();
            assert_eq!(tar.bytes, name.len() as u64);
            name
        });
        Ok::<_, String>(names.collect::<Vec<_>>().join(" "))
    };
    for (pattern, expected) in [
        ("set/x-08.tar", "set/x-08.tar"),
        ("set/x-{08..10}.tar", "set/x-08.tar set/x-09.tar set/x-10.tar"),
        ("{set-2/z,set/deep/y}.tar", "set-2/z.tar set/deep/y.tar"),
        ("set/*.tar", "set/x-08.tar set/x-09.tar set/x-10.tar"),
        ("set/x-0?.tar", "set/x-08.tar set/x-09.tar"),
        ("set/**/*.tar", "set/deep/y.tar set/x-08.tar set/x-09.tar set/x-10.tar"),
        ("*/*.tar", "set-2/z.tar set/x-08.tar set/x-09.tar set/x-10.tar"),
        ("{set,set-2}/*.tar", "set-2/z.tar set/x-08.tar set/x-09.tar set/x-10.tar"),
    ] {
        assert_eq!(found(pattern).await.unwrap(), expected, "{pattern}");
    }
    for (pattern, expected) in [
        ("set/x-{08..11}.tar", "set/x-11.tar` does not exist"),
        ("set", "is a folder"),
        ("set/*.zip", "nothing matches"),
        ("set/{1..", "has no `}`"),
    ] {
        let error = found(pattern).await.unwrap_err();
        assert!(error.contains(expected), "{pattern}: {error}");
    }
    eprintln!("seed {seed}: {} requests: {:?}", proxy.seen().len(), proxy.tally());

    let elsewhere = find_inputs_in("s3://no-such-bucket/*.tar", &buckets).await.unwrap_err();
    assert!(elsewhere.to_string().contains("no such bucket"), "{elsewhere}");
    let unknown = find_inputs_in("ftp://host/*.tar", &buckets).await.unwrap_err();
    assert!(unknown.to_string().contains("not supported"), "{unknown}");
    let local = find_inputs_in("/no/such/folder/*.tar", &buckets).await.unwrap_err();
    assert!(local.to_string().contains("does not exist"), "{local}");
}
