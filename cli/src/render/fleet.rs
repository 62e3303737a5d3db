//! The table of `clade workers`.

use std::collections::BTreeMap;
use std::time::Duration;

use clade_proto::v1::{Device, WorkerInfo};

use super::table::{last_column_wraps, new_table};
use super::{number, one_line};

/// All workers, as lines of at most `width` columns (60 or more).
pub(crate) fn render(workers: &[WorkerInfo], now_ms: u64, width: u16) -> String {
    if workers.is_empty() {
        return "no workers: nothing can run until one joins\n".to_owned();
    }
    let mut table = new_table(width);
    table.set_header(["NODE", "WORKER", "PHASE", "BUSY", "DOMAIN", "DEVICES", "WHY"]);
    for it in workers {
        table.add_row([
            one_line(&it.node),
            one_line(&it.worker),
            one_line(&it.phase),
            format!("{}/{}", it.busy, it.slots),
            one_line(&it.domain),
            devices(&it.devices),
            why(it, now_ms),
        ]);
    }
    last_column_wraps(&mut table);
    table.trim_fmt() + "\n"
}

/// `8 NVIDIA H100 80GB HBM3`, each kind once.
fn devices(devices: &[Device]) -> String {
    let mut kinds = BTreeMap::<&str, u32>::new();
    for device in devices {
        *kinds.entry(&device.kind).or_default() += 1;
    }
    let kinds: Vec<String> =
        kinds.into_iter().map(|(kind, count)| format!("{count} {}", one_line(kind))).collect();
    kinds.join(", ")
}

/// Why the worker gets nothing, or less than it could.
fn why(worker: &WorkerInfo, now_ms: u64) -> String {
    let why = one_line(&worker.why);
    let with_reason =
        |state: String| if why.is_empty() { state } else { format!("{state}: {why}") };
    let left = worker.quarantined_until_ms.saturating_sub(now_ms);
    let mut all = Vec::new();
    if worker.draining {
        all.push(with_reason("draining".to_owned()));
    } else if worker.cordoned {
        all.push(with_reason("cordoned".to_owned()));
    } else if left > 0 {
        let left = number::duration(Duration::from_millis(left).as_secs_f64());
        all.push(with_reason(format!("in quarantine for {left}")));
    }
    if worker.straggler {
        all.push("holds up its gang".to_owned());
    }
    let withdrawn = worker.devices.iter().filter(|device| !device.withdrawn.is_empty());
    all.extend(
        withdrawn.map(|device| {
            format!("slot {} withdrawn: {}", device.slot, one_line(&device.withdrawn))
        }),
    );
    all.join("; ")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::sample;
    use super::*;

    #[test]
    fn the_table_tells_why_a_worker_gets_nothing() {
        let text = render(&sample::fleet(), sample::NOW_MS, 100);
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        expect![[r#"
            NODE   WORKER      PHASE     BUSY  DOMAIN  DEVICES                  WHY
            gpu-0  gpu-0-0a1b  attached  2/2   rack-7  2 NVIDIA H100 80GB HBM3  holds up its gang
            gpu-1  gpu-1-0a1b  attached  1/2   rack-7  2 NVIDIA H100 80GB HBM3  cordoned: fan is loud; slot 1
                                                                                withdrawn: critical error XID
                                                                                79: see the kernel's log
            gpu-2  gpu-2-0a1b  attached  1/2   rack-7  2 NVIDIA H100 80GB HBM3  draining: new memory
            cpu-0  cpu-0-0a1b  attached  0/1   rack-7  1 cpu                    in quarantine for 4m10s: 3 gangs
                                                                                failed here
        "#]].assert_eq(&text);
        assert_eq!(render(&[], 0, 100), "no workers: nothing can run until one joins\n");
    }
}
