//! From the global arguments to a client.
//!
//! In: addresses, time limit. Out: a connected client, and a place to run futures. Absent:
//! commands.

use crate::args::Global;
use anyhow::Result;
use merganser_client::{Builder, Client, Keyspace, Quorum};

/// Runs a command's future on this thread.
pub(crate) fn block_on<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(command);
    // A thread may be waiting for standard input, which nothing can call back.
    runtime.shutdown_background();
    done
}

impl Global {
    /// A client with what every command says.
    pub(crate) async fn connect(&self) -> Result<Client> {
        Ok(self.builder().connect(self.addresses.iter()).await?)
    }

    pub(crate) fn builder(&self) -> Builder {
        match self.timeout {
            Some(timeout) => Client::builder().timeout(timeout),
            None => Client::builder(),
        }
    }

    /// Admin calls with the time that the user gives them.
    pub(crate) async fn admin(&self) -> Result<merganser_client::Admin> {
        let admin = self.connect().await?.admin();
        Ok(match self.timeout {
            Some(timeout) => admin.with_timeout(timeout),
            None => admin,
        })
    }
}

/// The keyspace with the quorums that the user asks for.
pub(crate) fn keyspace(client: &Client, name: &str, read: Option<Quorum>, write: Option<Quorum>) -> Keyspace {
    client.keyspace(name).with_read(read.unwrap_or_default()).with_write(write.unwrap_or_default())
}
