//! Tests of `link`: putting a streamed reply together.

use super::*;
use v1::{get_frame::Chunk, sibling::Content};

fn header(siblings: usize) -> v1::GetReply {
    v1::GetReply { siblings: vec![v1::Sibling::default(); siblings], ..Default::default() }
}

fn chunk(index: u32, bytes: &'static str, last: bool) -> Chunk {
    Chunk { index, bytes: bytes.into(), last }
}

fn assemble(header: v1::GetReply, chunks: impl IntoIterator<Item = Chunk>) -> Result<v1::GetReply, Error> {
    let mut assembly = Assembly::new(header);
    for chunk in chunks {
        assembly.add(&chunk)?;
    }
    assembly.finish()
}

#[test]
fn pieces_of_several_values_come_together_in_any_interleaving() {
    let mut header = header(3);
    header.siblings[1].content = Some(Content::Tombstone(true));
    let chunks = [chunk(2, "x", false), chunk(0, "", true), chunk(2, "yz", true)];
    let reply = assemble(header, chunks).unwrap();
    let contents: Vec<_> = reply.siblings.into_iter().map(|sibling| sibling.content.unwrap()).collect();
    assert_eq!(contents, [Content::Value("".into()), Content::Tombstone(true), Content::Value("xyz".into())]);
}

#[test]
fn frames_that_make_no_whole_are_refused() {
    let rows = [
        ("an end in the middle", vec![chunk(0, "x", false)]),
        ("no chunk at all", vec![]),
        ("a sibling that is not there", vec![chunk(0, "x", true), chunk(1, "y", true)]),
        ("more after the last", vec![chunk(0, "x", true), chunk(0, "y", true)]),
    ];
    for (why, chunks) in rows {
        let error = assemble(header(1), chunks).expect_err(why);
        assert_eq!(error.code(), "server", "{why}");
    }
}

#[tokio::test]
async fn an_address_that_is_none_is_named() {
    for address in ["", "no spaces allowed", "http://"] {
        let error = Link::new(
            address.into(),
            false,
            Duration::from_secs(1),
            &Connect::new(|endpoint| endpoint.connect_lazy()),
        )
        .unwrap_err();
        assert!(error.what().contains("address"), "{error}");
    }
}
