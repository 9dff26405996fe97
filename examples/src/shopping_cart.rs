//! Carts that settle themselves: as a set that the store ships, and by a plugin of one's own.
//!
//! In: addresses of a cluster. Out: both carts. Absent: the plugin's source, which is what
//! `merganser plugin new` generates (`plugin-sdk/template/resolver`); here it is uploaded as it
//! was compiled for the repository.

use crate::ensure_keyspace;
use anyhow::ensure;
use merganser_client::{Client, Resolution};
use std::time::Duration;

const PLUGIN: &[u8] = include_bytes!("../../plugins/artifacts/template-cart.wasm");

/// What the carts hold in the end, as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carts {
    /// As an `or-set`.
    pub set: String,
    /// As the plugin settled it.
    pub settled: String,
}

/// Runs the example.
pub async fn run(addresses: &[String]) -> anyhow::Result<Carts> {
    // The first time that a plugin is asked, a busy machine may take a while to compile it.
    let patient = Client::builder().timeout(Duration::from_secs(60)).attempts_max(u32::MAX);
    let client = patient.connect(addresses).await?;
    Ok(Carts { set: as_a_set(&client).await?, settled: by_a_plugin(&client).await? })
}

/// The set changes through operations; the store knows what they mean, so nothing needs settling.
async fn as_a_set(client: &Client) -> anyhow::Result<String> {
    ensure_keyspace(&client.admin(), "cart-sets", "lattice:or-set").await?;
    let carts = client.keyspace("cart-sets");
    carts.apply("ada", r#"{"add":["milk","tea"]}"#).await?;
    let (removed, added) =
        tokio::join!(carts.apply("ada", r#"{"remove":"milk"}"#), carts.apply("ada", r#"{"add":"eggs"}"#));
    removed.and(added)?;
    let set = carts.query("ada", "").await?;
    let set = String::from_utf8(set.result.to_vec())?;
    println!("as a set: {set}");
    Ok(set)
}

/// The cart is a document of ours; the plugin tells the store how two versions become one.
async fn by_a_plugin(client: &Client) -> anyhow::Result<String> {
    let admin = client.admin();
    let uploaded = admin.upload_plugin("example-cart", PLUGIN, |_| {}).await?;
    ensure!(uploaded.waiting.is_empty(), "every node holds the plugin");
    ensure_keyspace(&admin, "carts-by-plugin", "resolver:example-cart").await?;
    let carts = client.keyspace("carts-by-plugin");

    let mut cart = carts.get("ada").await?;
    cart.put(r#"{"milk":1}"#).await?;
    let (mut phone, mut laptop) = (cart.clone(), cart);
    phone.put(r#"{"milk":1,"tea":2}"#).await?;
    laptop.put(r#"{"milk":2}"#).await?;

    let mut seen = carts.get("ada").await?;
    ensure!(matches!(seen.resolution(), Resolution::Resolved { .. }), "the plugin settles what is read");
    let settled = String::from_utf8(seen.value()?.map(|value| value.to_vec()).unwrap_or_default())?;
    println!("by the plugin: {settled}");

    // A put after that read replaces both versions: whoever goes shopping need not know of them.
    seen.put("{}").await?;
    ensure!(carts.get_siblings("ada").await?.siblings().len() == 1, "the put covers all that was shown");
    Ok(settled)
}
