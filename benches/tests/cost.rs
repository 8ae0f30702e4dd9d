//! What the service's work may cost on DynamoDB. Units and requests are counted, so they are the same everywhere.

use benches::cost::measure;
use benches::table::Service;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bars_of_cost_are_held() {
    let service = Service::start().expect("a DynamoDB API starts");
    let report = measure(&service.address, &[10, 300]).await.expect("it is measured");
    let table = report.table();
    assert_eq!(report.bars.len(), 4, "{table}");
    assert!(report.bars.iter().all(|bar| bar.ok), "{table}");
    // At each of 256 shards' dues in each minute, at heartbeats each fifth of ten seconds, and at the owners in each ten.
    let (idle, ledger) = (&report.idle_hour, &report.idle_ledger_hour);
    assert_eq!((idle.write_requests, idle.write_units), (1_800.0, 1_800.0), "{table}");
    assert_eq!(idle.read_requests, 256.0 * 60.0 + 1_800.0 + 2.0 * 360.0, "{table}");
    assert_eq!((ledger.write_requests, ledger.read_requests), (0.0, 360.0), "{table}");
}
