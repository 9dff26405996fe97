//! Small programs that use Merganser, and what they share.
//!
//! ```text
//!   cargo run -p merganser-examples --bin quickstart        starts a cluster for itself
//!   MERGANSER_NODE=127.0.0.1:7401 cargo run -p …            uses the one that runs there
//! ```
//!
//! Reading order: [`quickstart`], [`siblings`] (settling a conflict by hand), [`shopping_cart`]
//! (letting the store settle it: a shipped type, and a plugin). Each is one function that a test
//! runs, too. [`local`] starts a cluster and cuts it; nothing in it is needed to use the store.

pub mod local;
pub mod quickstart;
pub mod shopping_cart;
pub mod siblings;

use merganser_client::{Admin, Error, proto::KeyspaceSettings};

/// Creates a keyspace unless it is there.
pub async fn ensure_keyspace(admin: &Admin, name: &str, policy: &str) -> Result<(), Error> {
    let settings = KeyspaceSettings { policy: policy.into(), ..Default::default() };
    match admin.create_keyspace(name, settings).await {
        Ok(_) | Err(Error::AlreadyExists { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
