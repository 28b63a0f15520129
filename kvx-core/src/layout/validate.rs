//! Whether a layout makes sense: in itself, and with the regions it speaks of. What passes here
//! may be planned with without fear of overflow.

use crate::error::Invalid;
use crate::layout::{
    Attention, HeadWindow, Layout, MAX_BLOCK_TOKENS, MAX_HEAD_SIZE, MAX_HEADS, MAX_LAYERS,
    MAX_POOLS, Pool,
};

/// A dimension of a pool: the number of steps it has, and the bytes of one.
type Dimension = (u64, u64);

impl Layout {
    /// Checks the layout against the lengths of the regions it lies in: [`Layout::validate_shape`],
    /// every pool inside its region, and no two pools over each other.
    ///
    /// # Errors
    /// The first thing found wrong. [`Invalid::OutOfBounds`] counts pools.
    pub fn validate(&self, region_lens: &[u64]) -> Result<(), Invalid> {
        let dimensions = self.shape()?;
        let len = self.pool_bytes();
        for (index, pool) in self.pools.iter().enumerate() {
            let Some(&region_len) = region_lens.get(pool.region as usize) else {
                return Err(Invalid::Index {
                    what: "region of a pool",
                    index: u64::from(pool.region),
                    len: region_lens.len() as u64,
                });
            };
            // shape() has made sure that the sum exists.
            if pool.offset + len > region_len {
                return Err(Invalid::OutOfBounds { index, offset: pool.offset, len, region_len });
            }
        }
        self.pools_apart(&dimensions)
    }

    /// Checks everything that can be checked without the regions: what a peer's layout must pass
    /// before it is used.
    ///
    /// Tokens, heads and blocks may nest in any order and with any gaps, as long as each dimension
    /// steps over the whole of those inside it.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn validate_shape(&self) -> Result<(), Invalid> {
        self.shape().map(|_| ())
    }

    /// The dimensions from the innermost to the outermost, once everything was checked.
    fn shape(&self) -> Result<[Dimension; 3], Invalid> {
        within("layers", self.layers, MAX_LAYERS)?;
        within("block_tokens", self.block_tokens, MAX_BLOCK_TOKENS)?;
        within("blocks", self.blocks, u32::MAX)?;
        within("head_size", self.head_size, MAX_HEAD_SIZE)?;
        within("heads.count", self.heads.count, MAX_HEADS)?;
        within("heads.total", self.heads.total, MAX_HEADS)?;
        if self.first_layer.checked_add(self.layers).is_none() {
            return Err(field("first_layer", "counts beyond 32 bits".to_owned()));
        }
        let heads = self.heads;
        if heads.first.checked_add(heads.count).is_none_or(|end| end > heads.total) {
            let HeadWindow { first, count, total } = heads;
            return Err(field("heads", format!("{count} from {first} on are not among {total}")));
        }
        if self.attention == Attention::Latent && heads != HeadWindow::LATENT {
            let why = "a latent cache has one head, on every rank".to_owned();
            return Err(field("heads", why));
        }
        let pools = u64::from(self.layers) * u64::from(self.attention.parts());
        if self.pools.len() as u64 != pools {
            let (left, right) = (self.pools.len() as u64, pools);
            return Err(Invalid::Mismatch { what: "pools against layers", left, right });
        }
        let (dimensions, extent) = self.nest()?;
        for pool in &self.pools {
            if pool.region as usize >= MAX_POOLS {
                let (index, len) = (u64::from(pool.region), MAX_POOLS as u64);
                return Err(Invalid::Index { what: "region of a pool", index, len });
            }
            if pool.offset.checked_add(extent).is_none() {
                return Err(field("pools", format!("a pool at {} has no end", pool.offset)));
            }
        }
        Ok(dimensions)
    }

    /// Sorts the dimensions by their steps and sees that each steps over all that lies within it;
    /// then no two cells of the pool share a byte. With them, the bytes of a pool.
    fn nest(&self) -> Result<([Dimension; 3], u64), Invalid> {
        let mut dimensions = [
            (u64::from(self.block_tokens), self.token_stride, "token_stride"),
            (u64::from(self.heads.count), self.head_stride, "head_stride"),
            (u64::from(self.blocks), self.block_stride, "block_stride"),
        ];
        dimensions.sort_by_key(|&(_, stride, _)| stride);
        let mut extent = self.head_bytes();
        for (count, stride, name) in dimensions.into_iter().filter(|&(count, ..)| count > 1) {
            if stride < extent {
                let why = format!("{stride} does not step over the {extent} bytes within");
                return Err(field(name, why));
            }
            extent = stride
                .checked_mul(count - 1)
                .and_then(|steps| steps.checked_add(extent))
                .ok_or_else(|| field(name, format!("{count} steps of {stride} have no end")))?;
        }
        Ok((dimensions.map(|(count, stride, _)| (count, stride)), extent))
    }

    fn pools_apart(&self, dimensions: &[Dimension; 3]) -> Result<(), Invalid> {
        let (len, row) = (self.pool_bytes(), self.head_bytes());
        // At most MAX_POOLS, which exist already.
        let mut pools: Vec<Pool> = self.pools.clone();
        pools.sort_unstable_by_key(|pool| (pool.region, pool.offset));
        for (index, pool) in pools.iter().enumerate() {
            let reached = pools[index + 1..]
                .iter()
                .take_while(|next| next.region == pool.region)
                .map(|next| next.offset - pool.offset)
                .take_while(|&distance| distance < len);
            for distance in reached {
                if touches(i128::from(distance), dimensions, i128::from(row)) {
                    let why = format!(
                        "those at {} and {} of region {} overlap",
                        pool.offset,
                        pool.offset + distance,
                        pool.region
                    );
                    return Err(field("pools", why));
                }
            }
        }
        Ok(())
    }
}

/// Whether cells of two pools of these dimensions (innermost first) share bytes when the second
/// pool begins `distance` after the first: whether whole steps lead from some cell to within `row`
/// bytes of another.
fn touches(distance: i128, dimensions: &[Dimension], row: i128) -> bool {
    let Some((&(count, stride), inner)) = dimensions.split_last() else {
        return distance.abs() < row;
    };
    if count == 1 {
        return touches(distance, inner, row);
    }
    // All inner steps together stay below one step of this dimension: only the step below the
    // distance and the one above it can come near enough.
    let (most, stride) = (i128::from(count) - 1, i128::from(stride));
    let below = distance.div_euclid(stride);
    [below, below + 1]
        .into_iter()
        .filter(|steps| (-most..=most).contains(steps))
        .any(|steps| touches(distance - steps * stride, inner, row))
}

fn within(name: &'static str, value: u32, most: u32) -> Result<(), Invalid> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(field(name, format!("{value} is not in 1 to {most}")))
}

fn field(field: &'static str, why: String) -> Invalid {
    Invalid::Field { field, why }
}
