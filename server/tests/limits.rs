//! What clients may not do, and that they are told so by name.

use crate::cluster::{problem, put, single};
use bytes::Bytes;
use merganser_proto::v1::plugins_client::PluginsClient;
use merganser_proto::v1::problem::Detail;
use merganser_proto::v1::{
    GetRequest, InvalidContext, PutRequest, TooLarge, UploadHeader, UploadRequest, invalid_context::Reason,
    upload_request::Part,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tonic::Code;

#[tokio::test]
async fn each_limit_that_a_put_breaks_is_a_typed_problem_and_nothing_is_stored() {
    let cluster = single("siblings").await;
    let mut kv = cluster.kv(0).await;
    let mut refused = async |request: PutRequest| {
        let key = request.key.clone();
        let status = kv.put(request).await.unwrap_err();
        let problem = problem(&status);
        if !key.is_empty() && key.len() <= 256 {
            let get = GetRequest { keyspace: "k".into(), key, ..Default::default() };
            assert_eq!(kv.get(get).await.unwrap().into_inner().state, 0, "something was stored");
        }
        (status.code(), problem.detail.unwrap())
    };
    let too_large = |what: &str, size_bytes, limit_bytes| {
        (Code::InvalidArgument, Detail::TooLarge(TooLarge { what: what.into(), size_bytes, limit_bytes }))
    };

    assert_eq!(refused(put(&[b'k'; 257], "v")).await, too_large("key", 257, 256));
    let (code, detail) = refused(put(b"", "v")).await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(matches!(detail, Detail::InvalidArgument(argument) if argument.field == "key"));
    let value = vec![0; (1 << 20) + 1];
    assert_eq!(refused(put(b"a", value)).await, too_large("value", (1 << 20) + 1, 1 << 20));
    // Too large to be decoded at all: refused by its announced length.
    let (code, detail) = refused(put(b"a", vec![0; 3 << 20])).await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(
        matches!(detail, Detail::TooLarge(large) if large.what == "request" && large.limit_bytes == 2 << 20)
    );
    let long = PutRequest { blind: false, context: vec![1; (64 << 10) + 1].into(), ..put(b"a", "v") };
    assert_eq!(refused(long).await, too_large("context", (64 << 10) + 1, 64 << 10));

    let unsaid = PutRequest { blind: false, ..put(b"a", "v") };
    assert!(matches!(refused(unsaid).await, (Code::FailedPrecondition, Detail::ContextRequired(_))));
    let both = PutRequest { context: Bytes::from_static(b"x"), ..put(b"a", "v") };
    assert!(matches!(refused(both).await, (_, Detail::InvalidArgument(a)) if a.field == "blind"));
    let id = PutRequest { request_id: Bytes::from_static(b"short"), ..put(b"a", "v") };
    assert!(matches!(refused(id).await, (_, Detail::InvalidArgument(a)) if a.field == "request_id"));
    let keyspace = PutRequest { keyspace: "none".into(), ..put(b"a", "v") };
    let status = kv.put(keyspace).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(matches!(problem(&status).detail, Some(Detail::UnknownKeyspace(k)) if k.keyspace == "none"));
}

#[tokio::test]
async fn a_context_that_was_changed_or_is_of_another_key_is_refused() {
    let cluster = single("siblings").await;
    let mut kv = cluster.kv(0).await;
    let good = kv.put(put(b"a", "1")).await.unwrap().into_inner().context;
    let mut changed = good.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    let cases: [(&[u8], Bytes, Reason); 3] = [
        (b"a", changed.into(), Reason::Forged),
        (b"b", good.clone(), Reason::Forged),
        (b"a", Bytes::from_static(b"nonsense"), Reason::Malformed),
    ];
    for (key, context, reason) in cases {
        let request = PutRequest { blind: false, context, ..put(key, "2") };
        let status = kv.put(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        let expected = Detail::InvalidContext(InvalidContext { reason: reason.into() });
        assert_eq!(problem(&status).detail, Some(expected));
    }
    let request = PutRequest { blind: false, context: good, ..put(b"a", "2") };
    kv.put(request).await.unwrap();
}

/// An upload of `announced` bytes that would send as much; how many chunks were taken from it.
async fn upload(announced: u64, sent_bytes: usize) -> (tonic::Status, usize) {
    let cluster = single("siblings").await;
    let mut plugins = PluginsClient::new(cluster.channel(0).await);
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&taken);
    let header = UploadHeader { name: "big".into(), size_bytes: announced };
    let chunk = Bytes::from(vec![0; 256 << 10]);
    let chunks = (0..sent_bytes / chunk.len()).map(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        UploadRequest { part: Some(Part::Chunk(chunk.clone())) }
    });
    let header = std::iter::once(UploadRequest { part: Some(Part::Header(header)) });
    let status = plugins.upload(tokio_stream::iter(header.chain(chunks))).await.unwrap_err();
    (status, taken.load(Ordering::Relaxed))
}

#[tokio::test]
async fn an_upload_of_100_mb_is_refused_early_whether_it_says_so_or_lies() {
    let (status, chunks) = upload(100 << 20, 100 << 20).await;
    assert!(
        matches!(problem(&status).detail, Some(Detail::TooLarge(large)) if large.size_bytes == 100 << 20)
    );
    assert!(chunks < 100, "{chunks} of 400 chunks were taken");
    let (status, chunks) = upload(0, 100 << 20).await;
    assert!(matches!(problem(&status).detail, Some(Detail::TooLarge(large)) if large.limit_bytes == 8 << 20));
    assert!(chunks < 100, "{chunks} of 400 chunks were taken");
    let (status, _) = upload(1 << 20, 2 << 20).await;
    assert!(matches!(problem(&status).detail, Some(Detail::InvalidArgument(a)) if a.field == "size_bytes"));
}

#[tokio::test]
async fn a_batch_may_be_larger_than_a_single_request() {
    use merganser_proto::v1::{BatchWriteRequest, WriteItem, write_item, write_outcome};
    let cluster = single("siblings").await;
    let mut kv = cluster.kv(0).await;
    let item = |n: u8| WriteItem { write: Some(write_item::Write::Put(put(&[n], vec![n; 1 << 20]))) };
    let reply =
        kv.batch_write(BatchWriteRequest { items: (1..=8).map(item).collect() }).await.unwrap().into_inner();
    assert!(
        reply.items.iter().all(|i| matches!(i.outcome, Some(write_outcome::Outcome::Reply(_)))),
        "{reply:?}"
    );
}
