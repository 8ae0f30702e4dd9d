//! What the service's work may cost on DynamoDB. Units and requests are counted, so they are the same everywhere.

use benches::cost::measure;
use benches::table::Service;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bars_of_cost_are_held() {
    let service = Service::start().expect("a DynamoDB API starts");
    let report = measure(&service.address, &[10, 300]).await.expect("it is measured");
    let table = report.table();
    assert_eq!(report.bars.len(), 3, "{table}");
    assert!(report.bars.iter().all(|bar| bar.ok), "{table}");
    assert_eq!(report.idle_hour.write_units, 0.0, "{table}");
}
