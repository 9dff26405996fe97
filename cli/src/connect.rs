//! From the global arguments to a client.
//!
//! In: addresses, time limit. Out: a connected client, and a place to run futures. Absent:
//! commands.

use crate::args::{Global, Read, Write};
use anyhow::Result;
use merganser_client::{Builder, Client, Keyspace};

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
pub(crate) fn reader(client: &Client, name: &str, read: &Read) -> Keyspace {
    let keys = client.keyspace(name).with_read(read.quorum.unwrap_or_default());
    keys.with_strictness(read.stand_ins.strictness())
}

/// As [`reader`], for writes.
pub(crate) fn writer(client: &Client, name: &str, write: &Write) -> Keyspace {
    let keys = client.keyspace(name).with_write(write.quorum.unwrap_or_default());
    keys.with_strictness(write.stand_ins.strictness())
}
