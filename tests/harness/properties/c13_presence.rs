//! C13, who is there: a node that has booted says nothing of keys before a member has judged its disk;
//! nobody is called down who can be heard; once all is well, all know all, as they are.
//!
//! In: what a node sends, whom it calls down, views of the members at the end. Out: a violation.
//! Absent: what makes a node hard to hear, which the world knows.

use super::{Check, broken};
use merganser_core::membership::{MemberState, MemberView};
use merganser_core::message::Message;

/// A message leaves a node that has joined, or not yet.
pub fn on_send(from: &str, joined: bool, message: &Message) -> Check {
    let of_the_cluster = matches!(
        message,
        Message::Gossip(_)
            | Message::CatalogPush { .. }
            | Message::PluginFetch { .. }
            | Message::PluginChunk { .. }
    );
    match joined || of_the_cluster {
        true => Ok(()),
        false => broken("C13", format!("{from} has not joined yet and sends {message:?}")),
    }
}

/// A node calls a member down, which it has had no reason not to hear.
pub fn on_down(node: &str, member: &str, silent_us: u64) -> Check {
    let text =
        format!("{node} calls {member} down, which it could hear for the last {} ms", silent_us / 1000);
    broken("C13", text)
}

/// What each node makes of the members at the end: its name and its view, which has itself in it.
pub fn at_end(views: &[(String, Vec<MemberView>)]) -> Check {
    for (name, view) in views {
        for member in view {
            let Some((_, theirs)) = views.iter().find(|(name, _)| *name == member.name) else { continue };
            let Some(itself) = theirs.iter().find(|view| view.name == member.name) else { continue };
            let is_known =
                (member.disk, member.boots, member.actor) == (itself.disk, itself.boots, itself.actor);
            if member.state != MemberState::Up || !is_known {
                return broken(
                    "C13",
                    format!("all is well, and {name} sees {member:?}, which is {itself:?}"),
                );
            }
        }
    }
    Ok(())
}
