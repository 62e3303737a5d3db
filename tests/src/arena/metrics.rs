//! What a coordinator's `/metrics` says.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context as _;

const PATIENCE: Duration = Duration::from_millis(500);

/// The text of a path, from a server that answers at once or not at all.
pub fn get(address: &str, path: &str) -> anyhow::Result<String> {
    let address: SocketAddr = address.parse().context("an address")?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

/// The sum of all samples of a metric.
pub fn sum(scraped: &str, metric: &str) -> f64 {
    let samples = scraped.lines().filter(|line| {
        let rest = line.strip_prefix(metric);
        rest.is_some_and(|rest| rest.starts_with(' ') || rest.starts_with('{'))
    });
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_sum_takes_all_labels_of_one_metric_and_no_other() {
        let scraped =
            "# TYPE a counter\na_total{x=\"1\"} 2\na_total{x=\"2\"} 3\na_total_more 9\nb 1\n";
        assert!((super::sum(scraped, "a_total") - 5.0).abs() < 1e-9);
        assert!((super::sum(scraped, "b") - 1.0).abs() < 1e-9);
        assert!(super::sum(scraped, "c").abs() < 1e-9);
    }
}
