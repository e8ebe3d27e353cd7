//! Compressed answers: deflated in chunks by all cores, once for everyone who asks, and kept until something changes.
//!
//! An answer is one gzip member, because several clients read no further than the first. Its chunks are deflated each on
//! their own and end at a byte, so they can be made side by side, kept, and joined with others; the checksum of the
//! whole is combined of theirs. What the store holds is compressed once per generation of the store, and of a new
//! generation only the chunks whose text is another. What the exporter says about itself stands before and after it, is
//! new at every scrape, and so is never older than the scrape.
//!
//! Narrowed answers are not kept: each is asked for by one scraper at a time, of the many that there may be, so that what
//! would be kept would hardly be asked for again before it changed.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::pin::{Pin, pin};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread;
use std::time::SystemTime;

use axum::body::{Body, Bytes, HttpBody};
use flate2::{Compress, Compression, FlushCompress, Status};
use futures_util::stream::{self, Stream, StreamExt as _};
use tokio::sync::watch;
use tokio::task::JoinSet;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::body::{Frame, Spare};
use crate::domain::Timestamp;
use crate::exposition::Format;
use crate::scrape::{Margins, Narrowing, Scrape, Stored};

/// The level of compression: at level 1 a text of metrics shrinks to a tenth, at 6 to a sixteenth in thrice the time.
const LEVEL: u32 = 1;

/// The most chunks deflated at once. An exporter shares its machine with others, and beyond a few cores it is the
/// rendering, which is one walk, that takes the time.
const MAX_PARALLEL: usize = 4;

/// How many chunks that are known pass before others have their turn: some tenths of a millisecond. Changing turns takes as
/// long as rendering one chunk or two.
const KNOWN_AT_ONCE: usize = 4;

/// What a chunk is deflated into, piece by piece; a frame of metrics mostly fits into one.
const PIECE_BYTES: usize = 64 * 1024;

/// What a gzip member begins with: its magic number, deflate, no flags, no time, no hint about the effort, system unknown.
const HEADER: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// Tells texts apart by 128 bits, with a key that only this process knows, so that nobody can choose names for which
/// two are taken for the same.
static DIGEST_KEY: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));

/// The digest of a text.
type Digest = u128;

/// Chunks by their texts.
type Chunks = HashMap<Digest, Chunk>;

/// A piece of text, deflated.
#[derive(Clone, Debug)]
struct Chunk {
    digest: Digest,
    deflated: Bytes,
    checksum: crc32fast::Hasher,
    /// The length of the text modulo 2³², as a member's trailer wants it.
    length: u32,
}

/// A frame of text: what it was deflated to before, or what is to be deflated.
enum Part {
    Known(Chunk),
    New(Digest, Frame),
}

/// The text could not be deflated, which only a defect can make happen. The answer is then cut off, and never ended as if
/// it were whole.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the answer could not be compressed")]
pub(super) struct Broken;

/// Compresses answers, and keeps the newest whole one of each format.
#[derive(Debug, Default)]
pub(super) struct Compressor {
    kept: Mutex<Vec<Kept>>,
    /// The compressions under way. They end with the compressor.
    under_way: Mutex<JoinSet<()>>,
    spare: Spare,
}

/// What the store held at one generation, compressed or being compressed.
#[derive(Debug)]
struct Kept {
    format: Format,
    generation: u64,
    valid_until: Option<Timestamp>,
    progress: watch::Receiver<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    chunks: Vec<Chunk>,
    ended: bool,
}

impl Compressor {
    /// The body of an answer.
    pub(super) fn answer(&self, scrape: &Scrape, narrowing: &Narrowing, format: Format) -> Body {
        let margins = scrape.margins(narrowing, format);
        if !narrowing.is_none() {
            let stored = scrape.stored(narrowing, format);
            return stream_body(deflated(stored, Arc::default(), self.spare.clone()), &margins);
        }
        let progress = self.join(scrape, narrowing, format);
        let ended = {
            let progress = progress.borrow();
            progress.ended.then(|| progress.chunks.clone())
        };
        match ended {
            Some(chunks) => whole_body(chunks, &margins),
            None => stream_body(follow(progress), &margins),
        }
    }

    /// The compression that answers who asks now: the one that is kept, if it is not out of date; the one under way, of
    /// a moment ago; or else a new one.
    fn join(&self, scrape: &Scrape, narrowing: &Narrowing, format: Format) -> watch::Receiver<Progress> {
        let mut kept = lock(&self.kept);
        let generation = scrape.generation();
        let now = Timestamp::from(SystemTime::now());
        let found = kept.iter().position(|kept| kept.format == format);
        if let Some(found) = found.and_then(|found| kept.get(found)) {
            let current = found.generation == generation && found.valid_until.is_none_or(|until| now <= until);
            let under_way = !found.progress.borrow().ended && found.progress.has_changed().is_ok();
            if current || under_way {
                return found.progress.clone();
            }
        }
        let stored = scrape.stored(narrowing, format);
        let (sender, progress) = watch::channel(Progress::default());
        let fresh = Kept {
            format,
            generation: stored.generation,
            valid_until: stored.valid_until,
            progress: progress.clone(),
        };
        let mut before = Chunks::new();
        if let Some(found) = found {
            let found = kept.swap_remove(found);
            before.extend(
                found
                    .progress
                    .borrow()
                    .chunks
                    .iter()
                    .map(|chunk| (chunk.digest, chunk.clone())),
            );
        }
        kept.push(fresh);
        drop(kept);
        let mut under_way = lock(&self.under_way);
        while under_way.try_join_next().is_some() {}
        under_way.spawn(compress(stored, Arc::new(before), self.spare.clone(), sender));
        progress
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Compresses what the store holds, for whoever follows.
async fn compress(stored: Stored, before: Arc<Chunks>, spare: Spare, sender: watch::Sender<Progress>) {
    let mut chunks = pin!(deflated(stored, before, spare));
    while let Some(chunk) = chunks.next().await {
        // Whoever follows sees the sender go without having ended.
        let Ok(chunk) = chunk else { return };
        sender.send_modify(|progress| progress.chunks.push(chunk));
    }
    sender.send_modify(|progress| progress.ended = true);
}

/// The chunks of a compression under way, as they come.
fn follow(progress: watch::Receiver<Progress>) -> impl Stream<Item = Result<Chunk, Broken>> {
    stream::unfold((progress, 0), |(mut progress, next)| async move {
        loop {
            {
                let now = progress.borrow_and_update();
                match now.chunks.get(next).cloned() {
                    Some(chunk) => {
                        drop(now);
                        return Some((Ok(chunk), (progress, next + 1)));
                    }
                    None if now.ended => return None,
                    None => {}
                }
            }
            if progress.changed().await.is_err() {
                // What was sent last may have been the end.
                let now = progress.borrow();
                if now.chunks.len() > next || now.ended {
                    continue;
                }
                drop(now);
                return Some((Err(Broken), (progress, usize::MAX)));
            }
        }
    })
}

/// The frames of what the store holds, deflated side by side, in order, but for those that were deflated before.
fn deflated(mut stored: Stored, before: Arc<Chunks>, spare: Spare) -> impl Stream<Item = Result<Chunk, Broken>> {
    let frames = std::iter::from_fn(move || {
        let mut frame = spare.take();
        stored.fill(&mut frame.text);
        if frame.text.is_empty() {
            return None;
        }
        // While the text is still in this core's cache, which makes it nearly free.
        let digest = digest(&frame.text);
        Some(match before.get(&digest) {
            Some(chunk) => Part::Known(chunk.clone()),
            None => Part::New(digest, frame),
        })
    });
    let parallel = thread::available_parallelism().map_or(1, usize::from).min(MAX_PARALLEL);
    let mut known = 0_usize;
    let deflate = move |part: Part| {
        known += usize::from(matches!(part, Part::Known(_)));
        let is_others_turn = known.is_multiple_of(KNOWN_AT_ONCE);
        async move {
            match part {
                Part::Known(chunk) => {
                    // Where nothing changed nothing is waited for, and this thread would walk through a hundred chunks
                    // before it looks whether somebody else has asked for something.
                    if is_others_turn {
                        tokio::task::yield_now().await;
                    }
                    Ok(chunk)
                }
                Part::New(digest, frame) => {
                    let deflate = move || Chunk::new(digest, &frame.text, FlushCompress::Sync);
                    tokio::task::spawn_blocking(deflate).await.map_err(|_| Broken)?
                }
            }
        }
    };
    stream::iter(frames).map(deflate).buffered(parallel)
}

/// A body whose chunks are still to come.
fn stream_body(chunks: impl Stream<Item = Result<Chunk, Broken>> + Send + 'static, margins: &Margins) -> Body {
    let mut member = match Member::begin(&margins.head) {
        Ok(member) => member,
        Err(broken) => return Body::from_stream(stream::iter([Err::<Bytes, _>(broken)])),
    };
    let begun = member.take();
    let tail = margins.tail.clone();
    let chunks = chunks.map(Some).chain(stream::iter([None]));
    let rest = chunks.map(move |chunk| match chunk {
        Some(chunk) => Ok(member.add(chunk?)),
        None => member.end(&tail),
    });
    Body::from_stream(stream::iter([Ok(begun)]).chain(rest))
}

/// A body whose chunks are all there, so that its length is known.
fn whole_body(chunks: Vec<Chunk>, margins: &Margins) -> Body {
    let parts = || -> Result<VecDeque<Bytes>, Broken> {
        let mut member = Member::begin(&margins.head)?;
        let mut parts = VecDeque::with_capacity(chunks.len() + 2);
        parts.push_back(member.take());
        parts.extend(chunks.into_iter().map(|chunk| member.add(chunk)));
        parts.push_back(member.end(&margins.tail)?);
        Ok(parts)
    };
    match parts() {
        Ok(parts) => Body::new(Whole(parts)),
        Err(broken) => Body::from_stream(stream::iter([Err::<Bytes, _>(broken)])),
    }
}

/// A gzip member that is being joined.
struct Member {
    begun: Vec<u8>,
    checksum: crc32fast::Hasher,
    length: u32,
}

impl Member {
    fn begin(head: &[u8]) -> Result<Self, Broken> {
        let mut member = Self {
            begun: HEADER.to_vec(),
            checksum: crc32fast::Hasher::new(),
            length: 0,
        };
        if !head.is_empty() {
            let chunk = member.add(Chunk::new(digest(head), head, FlushCompress::Sync)?);
            member.begun.extend_from_slice(&chunk);
        }
        Ok(member)
    }

    /// The bytes that it begins with.
    fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.begun).into()
    }

    /// The bytes of its next chunk.
    fn add(&mut self, chunk: Chunk) -> Bytes {
        self.checksum.combine(&chunk.checksum);
        self.length = self.length.wrapping_add(chunk.length);
        chunk.deflated
    }

    /// The bytes that it ends with.
    fn end(&mut self, tail: &[u8]) -> Result<Bytes, Broken> {
        let mut bytes = self
            .add(Chunk::new(digest(tail), tail, FlushCompress::Finish)?)
            .to_vec();
        bytes.extend_from_slice(&self.checksum.clone().finalize().to_le_bytes());
        bytes.extend_from_slice(&self.length.to_le_bytes());
        Ok(bytes.into())
    }
}

/// A body of parts that are all there.
struct Whole(VecDeque<Bytes>);

impl HttpBody for Whole {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Broken>>> {
        Poll::Ready(self.0.pop_front().map(|part| Ok(http_body::Frame::data(part))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        let length: usize = self.0.iter().map(Bytes::len).sum();
        u64::try_from(length).map_or_else(|_| http_body::SizeHint::default(), http_body::SizeHint::with_exact)
    }
}

/// What deflates, with the room for its output. Making it costs as much as a tenth of a chunk, so each thread keeps its
/// own.
struct Deflater {
    compress: Compress,
    piece: Vec<u8>,
}

thread_local! {
    static DEFLATER: RefCell<Deflater> = RefCell::new(Deflater {
        compress: Compress::new(Compression::new(LEVEL), false),
        piece: vec![0; PIECE_BYTES],
    });
}

fn digest(text: &[u8]) -> Digest {
    xxh3_128_with_seed(text, *DIGEST_KEY)
}

impl Chunk {
    /// Deflates a text on its own, to a byte's end or to the end of the member.
    fn new(digest: Digest, text: &[u8], flush: FlushCompress) -> Result<Self, Broken> {
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(text);
        let deflated = DEFLATER.with_borrow_mut(|deflater| deflater.deflate(text, flush))?;
        let length = u64::try_from(text.len()).map_err(|_| Broken)?;
        Ok(Self {
            digest,
            deflated: deflated.into(),
            checksum,
            length: u32::try_from(length % (1 << 32)).map_err(|_| Broken)?,
        })
    }
}

impl Deflater {
    fn deflate(&mut self, text: &[u8], flush: FlushCompress) -> Result<Vec<u8>, Broken> {
        let Self { compress, piece } = self;
        compress.reset();
        let mut deflated = Vec::new();
        let mut rest = text;
        loop {
            let (read, written) = (compress.total_in(), compress.total_out());
            let status = compress.compress(rest, piece, flush).map_err(|_| Broken)?;
            let read = usize::try_from(compress.total_in() - read).map_err(|_| Broken)?;
            let written = usize::try_from(compress.total_out() - written).map_err(|_| Broken)?;
            rest = rest.get(read..).unwrap_or_default();
            let filled = piece.get(..written).unwrap_or_default();
            if deflated.is_empty() {
                deflated.reserve_exact(written);
            }
            deflated.extend_from_slice(filled);
            let flushed = rest.is_empty() && written < piece.len();
            match (status, flush) {
                (Status::StreamEnd, _) => return Ok(deflated),
                (_, FlushCompress::Finish) => {}
                _ if flushed => return Ok(deflated),
                _ => {}
            }
            if read == 0 && written == 0 {
                return Err(Broken);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::collections::BTreeMap;
    use std::io::Read as _;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::collector::{self, Kept as Record, Target};
    use crate::domain::CustomerId;
    use crate::exposition::Table;
    use crate::health::Health;
    use crate::scrape::{Loaded, Vitals};
    use crate::store::{Plan, Store};

    const CUSTOMERS: usize = 0;

    fn store(stale_after: std::time::Duration) -> Arc<Store> {
        let plan = Plan {
            enabled: true,
            interval: stale_after,
            stale_after,
        };
        let store = Store::new(&vec![plan; collector::ALL.len()], None);
        store.expect(CUSTOMERS, &Target::Partner);
        Arc::new(store)
    }

    /// Lets so many customers be known since now.
    fn fill(store: &Store, customers: usize) {
        let ids = (0..customers).filter_map(|n| CustomerId::parse(&format!("customer-{n}")));
        let listed: BTreeMap<_, Arc<str>> = ids.map(|id| (id, Arc::from("Contoso"))).collect();
        let record = |id: &CustomerId| Record {
            record: Arc::new(()),
            tables: Arc::new([Table::single(&[("customer_id", id.as_str())], &[Some(1.0)])]),
            held: Arc::new([]),
            standing: None,
        };
        let records = listed.keys().map(|id| (id.clone(), record(id))).collect();
        store.reconcile(&listed, true).1.unwrap();
        let now = Timestamp::from(SystemTime::now());
        store.commit(CUSTOMERS, &Target::Partner, records, true, now).unwrap();
    }

    fn scrape(store: &Arc<Store>) -> Scrape {
        let loaded = Loaded {
            config: true,
            config_at: Timestamp::from_unix_seconds(0),
            state: true,
        };
        let health = Arc::new(Health::new());
        Scrape::new(
            Arc::clone(store),
            health,
            Arc::default(),
            Arc::new(Vitals::default),
            loaded,
        )
    }

    /// What a client that reads one member, and knows nothing of others, makes of a body.
    async fn unpacked(body: Body) -> String {
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let mut decoder = flate2::bufread::GzDecoder::new(&*bytes);
        let mut text = String::new();
        decoder.read_to_string(&mut text).unwrap();
        assert!(decoder.into_inner().is_empty(), "something follows the member");
        text
    }

    /// What the customers' metrics say, without what is new at every scrape.
    fn stored(text: &str) -> Vec<&str> {
        text.lines()
            .filter(|line| line.starts_with("elements_customer"))
            .collect()
    }

    #[tokio::test]
    async fn compressed_answers_say_what_plain_ones_do() {
        let store = store(std::time::Duration::from_secs(3600));
        fill(&store, 20_000);
        let scrape = scrape(&store);
        let compressor = Compressor::default();
        let one = Narrowing {
            customers: CustomerId::parse("customer-7").map(|id| [Target::Customer(id)].into()),
            ..Narrowing::default()
        };
        let of_collector = Narrowing {
            collectors: ["customers".to_owned()].into(),
            ..Narrowing::default()
        };
        for format in [Format::Text, Format::OpenMetrics] {
            for narrowing in [Narrowing::default(), one.clone(), of_collector.clone()] {
                let plain: Vec<u8> = scrape.frames(&narrowing, format).flatten().collect();
                let plain = String::from_utf8(plain).unwrap();
                let streamed = unpacked(compressor.answer(&scrape, &narrowing, format)).await;
                let kept = unpacked(compressor.answer(&scrape, &narrowing, format)).await;
                assert!(!stored(&plain).is_empty());
                assert_eq!(stored(&streamed), stored(&plain));
                assert_eq!(stored(&kept), stored(&plain));
                // What the exporter says of its process changes by the moment, but not what it is about.
                let last = |text: &str| {
                    text.lines()
                        .last()
                        .and_then(|line| line.split(' ').next().map(str::to_owned))
                };
                assert_eq!(last(&streamed), last(&plain));
                assert_eq!(streamed.contains("elements_up"), narrowing == Narrowing::default());
            }
        }
    }

    #[tokio::test]
    async fn who_asks_at_the_same_moment_gets_the_same_compression_until_something_changes() {
        let store = store(std::time::Duration::from_secs(3600));
        fill(&store, 20_000);
        let scrape = scrape(&store);
        let compressor = Compressor::default();
        let everything = Narrowing::default();
        let join = |format| compressor.join(&scrape, &everything, format);
        let first = join(Format::Text);
        assert!((0..32).all(|_| join(Format::Text).same_channel(&first)));
        assert!(!join(Format::OpenMetrics).same_channel(&first));
        let whole = compressor.answer(&scrape, &everything, Format::Text);
        unpacked(whole).await;
        assert!(join(Format::Text).same_channel(&first), "what is kept is still good");
        fill(&store, 20_001);
        let second = join(Format::Text);
        assert!(!second.same_channel(&first), "what is kept is out of date");
        let text = unpacked(compressor.answer(&scrape, &everything, Format::Text)).await;
        assert!(text.contains("elements_customer_info{customer_id=\"customer-20000\"} 1"));
        assert_eq!(lock(&compressor.kept).len(), 2, "one of each format and no more");
    }

    #[tokio::test]
    async fn only_what_changed_is_compressed_anew() {
        let store = store(std::time::Duration::from_secs(3600));
        fill(&store, 20_000);
        let scrape = scrape(&store);
        let compressor = Compressor::default();
        let everything = Narrowing::default();
        let compressed = async || {
            unpacked(compressor.answer(&scrape, &everything, Format::Text)).await;
            let kept = compressor.join(&scrape, &everything, Format::Text);
            let progress = kept.borrow();
            let memory = |chunk: &Chunk| (chunk.digest, chunk.deflated.as_ptr() as usize);
            progress.chunks.iter().map(memory).collect::<BTreeMap<_, _>>()
        };
        let before = compressed().await;
        assert!(before.len() > 3);
        fill(&store, 20_001);
        let after = compressed().await;
        let anew = after
            .iter()
            .filter(|(digest, memory)| before.get(digest) != Some(memory));
        assert!(
            matches!(anew.count(), 1..=2),
            "the customer that is new is in one or two chunks"
        );
    }

    #[tokio::test]
    async fn others_have_their_turn_between_chunks_that_are_known() {
        let store = store(std::time::Duration::from_secs(3600));
        fill(&store, 60_000);
        let scrape = scrape(&store);
        let compressor = Compressor::default();
        let everything = Narrowing::default();
        unpacked(compressor.answer(&scrape, &everything, Format::Text)).await;
        // Out of date, though every chunk of it is good.
        lock(&compressor.kept)[0].valid_until = Some(Timestamp::from_unix_seconds(0));
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&turns);
        let other = tokio::spawn(async move {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        unpacked(compressor.answer(&scrape, &everything, Format::Text)).await;
        other.abort();
        let kept = compressor.join(&scrape, &everything, Format::Text);
        let chunks = kept.borrow().chunks.len();
        let turns = turns.load(Ordering::Relaxed);
        assert!(
            chunks > 40 && turns >= chunks / KNOWN_AT_ONCE,
            "{turns} turns for {chunks} chunks"
        );
    }

    #[tokio::test]
    async fn what_is_kept_is_out_of_date_when_a_record_turns_stale() {
        let store = store(std::time::Duration::ZERO);
        fill(&store, 10);
        let scrape = scrape(&store);
        let compressor = Compressor::default();
        let everything = Narrowing::default();
        unpacked(compressor.answer(&scrape, &everything, Format::Text)).await;
        let first = compressor.join(&scrape, &everything, Format::Text);
        // Past the moment at which the records turn stale there is nothing left that ages.
        assert_eq!(lock(&compressor.kept)[0].valid_until, None);
        lock(&compressor.kept)[0].valid_until = Some(Timestamp::from_unix_seconds(0));
        assert!(!compressor.join(&scrape, &everything, Format::Text).same_channel(&first));
    }

    #[test]
    fn texts_of_every_size_come_back() {
        for length in [0, 1, 1000, PIECE_BYTES, 5 * PIECE_BYTES + 1] {
            // Numbers that hardly repeat, so that what is deflated takes several pieces.
            let text: Vec<u8> = (0..length)
                .flat_map(|n| fastrand::Rng::with_seed(n as u64).u64(..).to_le_bytes())
                .collect();
            let mut member = Member::begin(&text).unwrap();
            let mut bytes = member.take().to_vec();
            bytes.extend_from_slice(&member.add(Chunk::new(digest(&text), &text, FlushCompress::Sync).unwrap()));
            bytes.extend_from_slice(&member.end(&text).unwrap());
            let mut back = Vec::new();
            flate2::bufread::GzDecoder::new(&*bytes).read_to_end(&mut back).unwrap();
            assert!(back == text.repeat(3), "{length}");
        }
    }
}
