//! Puts and gets: through each node, in batches, pipelined, streamed, and fast enough.

use crate::cluster::{Cluster, problem, put, single};
use bytes::Bytes;
use merganser_proto::v1::{
    BatchGetRequest, BatchWriteRequest, DeleteRequest, GetReply, GetRequest, Moment, NowRequest,
    PipelineRequest, PutRequest, Quorum, State, Want, WriteItem, get_frame, get_outcome, pipeline_reply,
    pipeline_request, problem::Detail, quorum, sibling, write_item, write_outcome,
};
use std::time::{Duration, Instant};
use tonic::Code;

fn get(key: &[u8]) -> GetRequest {
    GetRequest { keyspace: "k".into(), key: key.to_vec().into(), ..Default::default() }
}

fn values(reply: &GetReply) -> Vec<Bytes> {
    let value = |sibling: &merganser_proto::v1::Sibling| match &sibling.content {
        Some(sibling::Content::Value(value)) => value.clone(),
        other => panic!("not a value: {other:?}"),
    };
    reply.siblings.iter().map(value).collect()
}

#[tokio::test]
async fn three_nodes_form_and_what_is_put_through_any_is_read_through_each() {
    let cluster = Cluster::start(3);
    cluster.formed().await;
    cluster.keyspace("k", "siblings", 3).await;
    for writer in 0..3 {
        let key = format!("key-{writer}");
        let value = Bytes::from(format!("written through {writer}"));
        let reply =
            cluster.kv(writer).await.put(put(key.as_bytes(), value.clone())).await.unwrap().into_inner();
        let acks = reply.acks.unwrap();
        assert_eq!((acks.needed, acks.sloppy), (2, false));
        assert!(acks.replicas.len() >= 2, "{acks:?}");
        for reader in 0..3 {
            let kind = Some(quorum::Kind::Replicas(2));
            let quorum = Some(Quorum { kind, ..Quorum::default() });
            let request = GetRequest { read: quorum, ..get(key.as_bytes()) };
            let reply = cluster.kv(reader).await.get(request).await.unwrap().into_inner();
            assert_eq!(reply.state(), State::Found);
            assert_eq!(values(&reply), std::slice::from_ref(&value));
            assert!(reply.acks.unwrap().replicas.len() >= 2);
        }
    }
}

#[tokio::test]
async fn a_write_counts_until_the_moment_that_it_names_in_this_boot_of_its_node() {
    let cluster = single("siblings").await;
    let mut kv = cluster.kv(0).await;
    let now = async || kv.clone().now(NowRequest {}).await.unwrap().into_inner().moment.unwrap();
    let (first, second) = (now().await, now().await);
    assert_eq!(first.session, second.session);
    assert!(first.running_ms <= second.running_ms);
    let other_boot = Moment { session: first.session ^ 1, running_ms: u64::MAX };
    let over = Moment { running_ms: 0, ..first };
    while now().await.running_ms == 0 {}
    for until in [over, other_boot] {
        let status = kv.put(PutRequest { until: Some(until), ..put(b"a", "1") }).await.unwrap_err();
        assert_eq!(status.code(), Code::Aborted);
        assert!(matches!(problem(&status).detail, Some(Detail::Late(_))), "{until:?}");
    }
    assert_eq!(kv.get(get(b"a")).await.unwrap().into_inner().state(), State::NotFound);
    for until in [None, Some(Moment { running_ms: first.running_ms + 60_000, ..first })] {
        kv.put(PutRequest { until, ..put(b"a", "1") }).await.unwrap();
    }
    assert_eq!(kv.get(get(b"a")).await.unwrap().into_inner().state(), State::Found);
}

#[tokio::test]
async fn a_write_with_the_context_of_a_read_replaces_what_was_read_and_a_blind_one_does_not() {
    let cluster = single("siblings").await;
    let mut kv = cluster.kv(0).await;
    let first = kv.put(put(b"a", "1")).await.unwrap().into_inner();
    let mut next = put(b"a", "2");
    (next.blind, next.context) = (false, first.context);
    kv.put(next).await.unwrap();
    let reply = kv.get(get(b"a")).await.unwrap().into_inner();
    assert_eq!(values(&reply), ["2"]);
    let lost = kv.put(put(b"a", "3")).await.unwrap().into_inner();
    assert_eq!(lost.siblings, 2);
    let reply = kv.get(get(b"a")).await.unwrap().into_inner();
    assert_eq!(values(&reply).len(), 2);
    let delete = DeleteRequest {
        keyspace: "k".into(),
        key: Bytes::from_static(b"a"),
        context: reply.context,
        ..Default::default()
    };
    kv.delete(delete).await.unwrap();
    let reply = kv.get(get(b"a")).await.unwrap().into_inner();
    assert_eq!(reply.state(), State::Deleted);
    assert_eq!(kv.get(get(b"never")).await.unwrap().into_inner().state(), State::NotFound);
}

#[tokio::test]
async fn each_item_of_a_batch_has_an_outcome_of_its_own() {
    let cluster = single("siblings").await;
    let mut kv = cluster.kv(0).await;
    let write = |put| WriteItem { write: Some(write_item::Write::Put(put)) };
    let items = vec![write(put(b"a", "1")), write(put(b"", "no key")), write(put(b"b", "2"))];
    let reply = kv.batch_write(BatchWriteRequest { items }).await.unwrap().into_inner();
    let fine: Vec<bool> = reply
        .items
        .iter()
        .map(|item| matches!(item.outcome, Some(write_outcome::Outcome::Reply(_))))
        .collect();
    assert_eq!(fine, [true, false, true]);
    let items = vec![get(b"a"), GetRequest { keyspace: "other".into(), ..get(b"a") }, get(b"b")];
    let reply = kv.batch_get(BatchGetRequest { items }).await.unwrap().into_inner();
    let [a, other, b] = &reply.items[..] else { panic!("three outcomes") };
    for (outcome, expected) in [(a, "1"), (b, "2")] {
        match &outcome.outcome {
            Some(get_outcome::Outcome::Reply(reply)) => assert_eq!(values(reply), [expected]),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(&other.outcome, Some(get_outcome::Outcome::Problem(problem)) if problem.code == 5));
    let items = vec![get(b"a"); 1001];
    assert_eq!(
        kv.batch_get(BatchGetRequest { items }).await.unwrap_err().code(),
        tonic::Code::InvalidArgument
    );
}

#[tokio::test]
async fn a_pipeline_answers_each_request_by_its_id_and_ends_when_all_are_answered() {
    let cluster = single("siblings").await;
    let mut kv = cluster.kv(0).await;
    let put_request = |id: u64| PipelineRequest {
        id,
        request: Some(pipeline_request::Request::Put(put(format!("{id}").as_bytes(), format!("v{id}")))),
    };
    let get_request = |id: u64| PipelineRequest {
        id,
        request: Some(pipeline_request::Request::Get(get(format!("{id}").as_bytes()))),
    };
    let mut run = async |requests: Vec<PipelineRequest>| {
        let mut replies = kv.pipeline(tokio_stream::iter(requests)).await.unwrap().into_inner();
        let mut all = std::collections::BTreeMap::new();
        while let Some(reply) = replies.message().await.unwrap() {
            assert!(all.insert(reply.id, reply.outcome.unwrap()).is_none());
        }
        all
    };
    let mut written =
        run((0..2_000).map(put_request).chain([PipelineRequest { id: 9_999, request: None }]).collect())
            .await;
    assert!(matches!(written.remove(&9_999), Some(pipeline_reply::Outcome::Problem(_))));
    assert_eq!(written.len(), 2_000);
    assert!(written.values().all(|outcome| matches!(outcome, pipeline_reply::Outcome::Write(_))));
    let read = run((0..2_000).map(get_request).collect()).await;
    for (id, outcome) in read {
        match outcome {
            pipeline_reply::Outcome::Get(reply) => assert_eq!(values(&reply), [format!("v{id}")]),
            other => panic!("{other:?}"),
        }
    }
    // Many in flight share turns and syncs; that is what makes them cheap.
    let status = cluster.status(0).await;
    assert!(crate::cluster::metric(&status, "appends_per_sync") > 2.0);
    assert!(crate::cluster::metric(&status, "events_per_turn") > 2.0);
}

#[tokio::test]
async fn siblings_larger_than_a_message_come_as_a_stream() {
    let cluster = single("siblings").await;
    let mut kv = cluster.kv(0).await;
    let value = |n: u8| Bytes::from(vec![n; 1 << 20]);
    for n in 0..5 {
        kv.put(put(b"a", value(n))).await.unwrap();
    }
    let want = GetRequest { want: Want::Siblings.into(), ..get(b"a") };
    let status = kv.get(want.clone()).await.unwrap_err();
    let problem = crate::cluster::problem(&status);
    assert!(problem.message.contains("GetStream"), "{problem:?}");
    let mut frames = kv.get_stream(want).await.unwrap().into_inner();
    let mut values: Vec<Vec<u8>> = Vec::new();
    while let Some(frame) = frames.message().await.unwrap() {
        match frame.frame.unwrap() {
            get_frame::Frame::Header(header) => {
                assert!(values.is_empty());
                assert!(header.siblings.iter().all(|sibling| sibling.content.is_none()));
                values = vec![Vec::new(); header.siblings.len()];
            }
            get_frame::Frame::Chunk(chunk) => {
                assert!(chunk.bytes.len() <= 256 << 10);
                values[chunk.index as usize].extend_from_slice(&chunk.bytes);
            }
        }
    }
    values.sort();
    assert_eq!(values, (0..5).map(|n| value(n).to_vec()).collect::<Vec<_>>());
}

/// Without TCP_NODELAY on both ends of every connection this takes 40 ms and more.
#[tokio::test]
async fn a_get_at_two_of_three_replicas_takes_less_than_20_ms_on_loopback() {
    let cluster = Cluster::start(3);
    cluster.formed().await;
    cluster.keyspace("k", "siblings", 3).await;
    let mut kv = cluster.kv(0).await;
    kv.put(put(b"a", vec![1; 1000])).await.unwrap();
    let mut took = Vec::new();
    for _ in 0..51 {
        let began = Instant::now();
        kv.get(get(b"a")).await.unwrap();
        took.push(began.elapsed());
    }
    took.sort();
    println!("median {:?}, worst {:?}", took[25], took[50]);
    assert!(took[25] < Duration::from_millis(20), "median {:?}", took[25]);
}
