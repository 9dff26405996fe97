//! A conflict settled by hand: see `merganser_examples::siblings`.

use merganser_examples::{local, siblings};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let (addresses, started) = local::given_or_started().await?;
    siblings::run(&addresses).await?;
    match started {
        Some(cluster) => cluster.stop().await,
        None => Ok(()),
    }
}
