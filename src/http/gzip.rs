//! Compressed responses: deflated in parallel, once for all scrapers, and cached until the store changes.
//!
//! A response is one gzip member, because several clients read no further than the first. Each chunk is deflated
//! separately and ends at a byte boundary, so chunks can be compressed in parallel, cached and joined; their checksums
//! are combined. The contents of the store are compressed once per generation of the store, and only chunks whose text
//! changed. The exporter's own metrics precede and follow them and are compressed for every scrape, so they are never
//! older than the scrape.
//!
//! Filtered responses are not cached: each has one scraper, so a cached one would rarely be used before it changes.

mod member;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::SystemTime;

use axum::body::{Body, Bytes};
use flate2::FlushCompress;
use futures_util::stream::{self, Stream, StreamExt as _};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::task::AbortOnDropHandle;

use super::body::{Broken, Frame, Spare, made_ahead};
use crate::domain::Timestamp;
use crate::exposition::Format;
use crate::scrape::{Scrape, ScrapeFilter, Stored};
use member::{Chunk, Digest, Sum, digest};

/// Maximum number of chunks deflated at once. The exporter shares its machine, and beyond a few cores rendering, which
/// is sequential, limits the speed.
const MAX_PARALLEL: usize = 4;

/// Chunks by their texts.
type Chunks = HashMap<Digest, Chunk>;

/// A frame of text: its cached chunk, or the text to deflate.
enum Part {
    Known(Chunk),
    New(Frame),
}

/// Compresses responses, and caches the newest complete one of each format.
#[derive(Debug, Default)]
pub(super) struct Compressor {
    kept: Mutex<Vec<Kept>>,
    spare: Spare,
}

/// The contents of one generation of the store, compressed or being compressed.
#[derive(Debug)]
struct Kept {
    format: Format,
    generation: u64,
    valid_until: Option<Timestamp>,
    progress: watch::Receiver<Progress>,
    _compression: AbortOnDropHandle<()>,
}

#[derive(Debug, Default)]
struct Progress {
    chunks: Vec<Published>,
    ended: bool,
}

/// A chunk that is available to all scrapers.
#[derive(Debug)]
struct Published {
    digest: Digest,
    chunk: Chunk,
    /// Sum of all chunks up to this one.
    sum: Sum,
}

impl Compressor {
    /// Returns the body of a response.
    pub(super) fn body(&self, scrape: &Scrape, filter: &ScrapeFilter, format: Format) -> Result<Body, Broken> {
        let now = Timestamp::from(SystemTime::now());
        // The contents of the store come first, see `Scrape::frames`.
        if filter.is_empty() {
            let chunks = follow(self.join(scrape, format, now));
            return member::body(&scrape.exporter_metrics(filter, format, now), chunks);
        }
        let stored = scrape.stored(filter, format, now);
        let exporter_metrics = scrape.exporter_metrics(filter, format, now);
        let chunks = deflated(stored, Chunks::new(), self.spare.clone());
        let mut sum = Sum::default();
        let chunks = chunks.map(move |chunk| {
            let (_, chunk) = chunk?;
            sum.add(&chunk.sum);
            Ok((chunk.deflated, sum.clone()))
        });
        member::body(&exporter_metrics, chunks)
    }

    /// Returns the compression for a request: the cached one if it is current, one that started a moment ago, or a new
    /// one.
    fn join(&self, scrape: &Scrape, format: Format, now: Timestamp) -> watch::Receiver<Progress> {
        let mut kept = lock(&self.kept);
        let generation = scrape.generation();
        let found = kept.iter().position(|kept| kept.format == format);
        if let Some(found) = found.and_then(|found| kept.get(found)) {
            let current = found.generation == generation && found.valid_until.is_none_or(|until| now <= until);
            let in_progress = !found.progress.borrow().ended && found.progress.has_changed().is_ok();
            if current || in_progress {
                return found.progress.clone();
            }
        }
        let before = found.map(|found| kept.swap_remove(found));
        let chunk = |published: &Published| (published.digest, published.chunk.clone());
        let before = before.map(|before| before.progress.borrow().chunks.iter().map(chunk).collect());
        let stored = scrape.stored(&ScrapeFilter::default(), format, now);
        let (generation, valid_until) = (stored.generation, stored.valid_until);
        let (sender, progress) = watch::channel(Progress::default());
        let chunks = deflated(stored, before.unwrap_or_default(), self.spare.clone());
        kept.push(Kept {
            format,
            generation,
            valid_until,
            progress: progress.clone(),
            _compression: AbortOnDropHandle::new(tokio::spawn(publish(chunks, sender))),
        });
        progress
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Publishes chunks to all readers as they are made.
async fn publish(chunks: impl Stream<Item = Result<(Digest, Chunk), Broken>>, sender: watch::Sender<Progress>) {
    let mut chunks = pin!(chunks);
    let mut sum = Sum::default();
    while let Some(chunk) = chunks.next().await {
        // Readers notice that the sender is dropped early.
        let Ok((digest, chunk)) = chunk else { return };
        sum.add(&chunk.sum);
        let sum = sum.clone();
        sender.send_modify(|progress| progress.chunks.push(Published { digest, chunk, sum }));
    }
    sender.send_modify(|progress| progress.ended = true);
}

/// Returns the chunks of a cached or running compression as they become available.
fn follow(progress: watch::Receiver<Progress>) -> impl Stream<Item = Result<(Bytes, Sum), Broken>> {
    stream::unfold((progress, 0), async |(mut progress, next)| {
        let seen = progress.wait_for(|now| now.ended || now.chunks.len() > next).await;
        let sent = |published: &Published| (published.chunk.deflated.clone(), published.sum.clone());
        let found = seen.map(|now| now.chunks.get(next).map(sent));
        match found {
            Ok(chunk) => chunk.map(|chunk| (Ok(chunk), (progress, next + 1))),
            // The compression was cancelled. Nothing is read after this.
            Err(_) => Some((Err(Broken), (progress, next))),
        }
    })
}

/// Returns the frames of the store's contents in order, deflated in parallel unless cached.
fn deflated(mut stored: Stored, before: Chunks, spare: Spare) -> impl Stream<Item = Result<(Digest, Chunk), Broken>> {
    let parts = std::iter::from_fn(move || {
        let mut frame = spare.take();
        stored.fill(&mut frame.text);
        if frame.text.is_empty() {
            return None;
        }
        // Hashed while the text is still in this core's cache, which makes it nearly free.
        let digest = digest(&frame.text);
        let known = before.get(&digest).cloned();
        Some((digest, known.map_or(Part::New(frame), Part::Known)))
    });
    let parallel = thread::available_parallelism().map_or(1, usize::from).min(MAX_PARALLEL);
    let deflate = async |part: Result<(Digest, Part), Broken>| match part? {
        (digest, Part::Known(chunk)) => Ok((digest, chunk)),
        (digest, Part::New(frame)) => {
            let deflating = spawn_blocking(move || Chunk::new(&frame.text, FlushCompress::Sync));
            Ok((digest, deflating.await.map_err(|_| Broken)??))
        }
    };
    made_ahead(parts).map(deflate).buffered(parallel)
}
