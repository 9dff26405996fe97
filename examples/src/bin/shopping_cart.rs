//! Carts that settle themselves: see `merganser_examples::shopping_cart`.

use merganser_examples::{local, shopping_cart};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let (addresses, started) = local::given_or_started().await?;
    shopping_cart::run(&addresses).await?;
    match started {
        Some(cluster) => cluster.stop().await,
        None => Ok(()),
    }
}
