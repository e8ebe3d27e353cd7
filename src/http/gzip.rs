//! Compresses responses on several threads. Caches unfiltered responses until the store changes or a value expires, so
//! that each is compressed only once for all scrapers.
//!
//! A response is one gzip member, because several clients ignore all members after the first. Each frame of text is
//! deflated separately into a chunk that ends at a byte boundary, so chunks can be compressed in parallel, cached and
//! joined. Their checksums are combined. For each version of the store, only frames whose text has changed are
//! compressed. The exporter's own metrics, at the beginning and end of a response, are compressed for every scrape.
//!
//! Filtered responses are not cached. Usually, only one scraper requests a given filtered response, and the contents
//! change before the next scrape.

mod member;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Mutex;
use std::thread;
use std::time::SystemTime;

use axum::body::{Body, Bytes};
use flate2::FlushCompress;
use futures_util::stream::{self, Stream, StreamExt as _};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::task::AbortOnDropHandle;

use super::body::{BufferPool, Frame, RenderError, render_ahead};
use crate::domain::Timestamp;
use crate::exposition::Format;
use crate::lock::lock;
use crate::scrape::{Scrape, ScrapeFilter, Stored};
use member::{Checksum, Chunk, Digest, digest};

/// Maximum number of chunks that are deflated at the same time. With more, rendering would be the bottleneck, because
/// it is sequential. Other programs on the machine also need cores.
const MAX_PARALLEL: usize = 4;

/// Chunks by the digest of their uncompressed text.
type Chunks = HashMap<Digest, Chunk>;

/// A cached chunk, or a frame to deflate.
enum FramePart {
    Cached(Chunk),
    New(Frame),
}

/// Compresses responses. For each format, caches the chunks of the latest unfiltered response.
#[derive(Debug, Default)]
pub(super) struct Compressor {
    cached: Mutex<Vec<CachedCompression>>,
    pool: BufferPool,
}

/// The compressed contents of one version of the store, complete or in progress.
#[derive(Debug)]
struct CachedCompression {
    format: Format,
    version: u64,
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
    /// Checksum of all chunks up to and including this chunk.
    checksum: Checksum,
}

impl Compressor {
    /// Returns the compressed body of a response.
    pub(super) fn body(&self, scrape: &Scrape, filter: &ScrapeFilter, format: Format) -> Result<Body, RenderError> {
        let now = Timestamp::from(SystemTime::now());
        // The store is read first; see `Scrape::frames`.
        if filter.is_empty() {
            let chunks = stream_chunks(self.compression(scrape, format, now));
            return member::body(&scrape.exporter_metrics(filter, format, now), chunks);
        }
        let stored = scrape.stored(filter, format, now);
        let exporter_metrics = scrape.exporter_metrics(filter, format, now);
        let chunks = deflated(stored, Chunks::new(), self.pool.clone());
        let mut checksum = Checksum::default();
        let chunks = chunks.map(move |chunk| {
            let (_, chunk) = chunk?;
            checksum.add(&chunk.checksum);
            Ok((chunk.deflated, checksum.clone()))
        });
        member::body(&exporter_metrics, chunks)
    }

    /// Returns the compression for a request: the cached compression if it is current or still in progress, otherwise a
    /// new compression.
    fn compression(&self, scrape: &Scrape, format: Format, now: Timestamp) -> watch::Receiver<Progress> {
        let mut cached = lock(&self.cached);
        let version = scrape.version();
        let found = cached.iter().position(|cached| cached.format == format);
        if let Some(found) = found.and_then(|found| cached.get(found)) {
            let current = found.version == version && found.valid_until.is_none_or(|until| now <= until);
            let in_progress = !found.progress.borrow().ended && found.progress.has_changed().is_ok();
            if current || in_progress {
                return found.progress.clone();
            }
        }
        let before = found.map(|found| cached.swap_remove(found));
        let chunk = |published: &Published| (published.digest, published.chunk.clone());
        let before = before.map(|before| before.progress.borrow().chunks.iter().map(chunk).collect());
        let stored = scrape.stored(&ScrapeFilter::default(), format, now);
        let (version, valid_until) = (stored.version, stored.valid_until);
        let (sender, progress) = watch::channel(Progress::default());
        let chunks = deflated(stored, before.unwrap_or_default(), self.pool.clone());
        cached.push(CachedCompression {
            format,
            version,
            valid_until,
            progress: progress.clone(),
            _compression: AbortOnDropHandle::new(tokio::spawn(publish(chunks, sender))),
        });
        progress
    }
}

/// Publishes chunks to all readers as they are compressed.
async fn publish(chunks: impl Stream<Item = Result<(Digest, Chunk), RenderError>>, sender: watch::Sender<Progress>) {
    let mut chunks = pin!(chunks);
    let mut checksum = Checksum::default();
    while let Some(chunk) = chunks.next().await {
        // After an error, readers detect that the sender was dropped before the end.
        let Ok((digest, chunk)) = chunk else { return };
        checksum.add(&chunk.checksum);
        let checksum = checksum.clone();
        sender.send_modify(|progress| {
            progress.chunks.push(Published {
                digest,
                chunk,
                checksum,
            })
        });
    }
    sender.send_modify(|progress| progress.ended = true);
}

/// Returns the chunks of a compression as they become available.
fn stream_chunks(progress: watch::Receiver<Progress>) -> impl Stream<Item = Result<(Bytes, Checksum), RenderError>> {
    stream::unfold((progress, 0), async |(mut progress, next)| {
        let seen = progress.wait_for(|now| now.ended || now.chunks.len() > next).await;
        let send = |published: &Published| (published.chunk.deflated.clone(), published.checksum.clone());
        let found = seen.map(|now| now.chunks.get(next).map(send));
        match found {
            Ok(chunk) => chunk.map(|chunk| (Ok(chunk), (progress, next + 1))),
            // The compression failed or was cancelled, so the body ends with an error.
            Err(_) => Some((Err(RenderError), (progress, next))),
        }
    })
}

/// Returns the frames of the store's contents in order, deflated in parallel unless cached.
fn deflated(
    mut stored: Stored,
    before: Chunks,
    pool: BufferPool,
) -> impl Stream<Item = Result<(Digest, Chunk), RenderError>> {
    let parts = std::iter::from_fn(move || {
        let mut frame = pool.take();
        stored.fill(&mut frame.text);
        if frame.text.is_empty() {
            return None;
        }
        // The text is still in the CPU cache, so hashing it here costs little.
        let digest = digest(&frame.text);
        let known = before.get(&digest).cloned();
        Some((digest, known.map_or(FramePart::New(frame), FramePart::Cached)))
    });
    let parallel = thread::available_parallelism().map_or(1, usize::from).min(MAX_PARALLEL);
    let deflate = async |part: Result<(Digest, FramePart), RenderError>| match part? {
        (digest, FramePart::Cached(chunk)) => Ok((digest, chunk)),
        (digest, FramePart::New(frame)) => {
            let deflating = spawn_blocking(move || Chunk::new(&frame.text, FlushCompress::Sync));
            Ok((digest, deflating.await.map_err(|_| RenderError)??))
        }
    };
    render_ahead(parts).map(deflate).buffered(parallel)
}
