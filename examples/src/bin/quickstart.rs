//! Put, get, change, delete: see `merganser_examples::quickstart`.

use merganser_examples::{local, quickstart};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let (addresses, started) = local::given_or_started().await?;
    quickstart::run(&addresses).await?;
    match started {
        Some(cluster) => cluster.stop().await,
        None => Ok(()),
    }
}
