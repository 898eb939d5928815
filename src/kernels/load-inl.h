// One load for each storage type: a vector of floats from whatever is stored. Per-target header:
// see kernels.cc.
#include "kernels/vector-inl.h"

#if defined(RAPT_KERNELS_LOAD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_LOAD_INL_H_
#undef RAPT_KERNELS_LOAD_INL_H_
#else
#define RAPT_KERNELS_LOAD_INL_H_
#endif

#include <limits>

#include "rapt/types.hpp"

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

// Highway's name of a storage type.
template <class T>
struct LaneOf {
  using type = T;
};
template <>
struct LaneOf<BFloat16> {
  using type = hwy::bfloat16_t;
};
template <>
struct LaneOf<Float16> {
  using type = hwy::float16_t;
};
template <class T>
using StoredTag = hn::Rebind<typename LaneOf<T>::type, F32>;

// Highway's own takes infinity for 65536 where the CPU has no such conversion. Scaling by 2^112
// moves the exponent, also that of denormals.
HWY_INLINE V32 WidenedF16(hn::Vec<hn::Rebind<std::uint16_t, F32>> v) {
  const F32 d;
  const hn::RebindToUnsigned<F32> du;
  const auto bits = hn::PromoteTo(du, v);
  const auto rest = hn::And(bits, hn::Set(du, 0x7fffu));
  const auto scaled = hn::BitCast(
      du, hn::Mul(hn::BitCast(d, hn::ShiftLeft<13>(rest)), hn::Set(d, 5.192296858534828e33f)));
  const auto infinite =
      hn::IfThenElseZero(hn::Gt(rest, hn::Set(du, 0x7bffu)), hn::Set(du, 0x7f800000u));
  const auto sign = hn::ShiftLeft<16>(hn::Sub(bits, rest));
  return hn::BitCast(d, hn::Or(hn::Or(scaled, infinite), sign));
}

template <class T>
HWY_INLINE V32 Widened(hn::Vec<StoredTag<T>> v) {
  const F32 d;
  if constexpr (std::is_same_v<T, float>) {
    return v;
#if !(HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2)
  } else if constexpr (std::is_same_v<T, Float16>) {
    return WidenedF16(hn::BitCast(hn::Rebind<std::uint16_t, F32>(), v));
#endif
  } else if constexpr (std::is_same_v<T, std::int8_t>) {
    return hn::ConvertTo(d, hn::PromoteTo(hn::RebindToSigned<F32>(), v));
  } else {
    return hn::PromoteTo(d, v);
  }
}

template <class T>
HWY_INLINE const typename LaneOf<T>::type* Lane(const T* from) {
  return reinterpret_cast<const typename LaneOf<T>::type*>(from);
}

// Elements [x, x + Lanes()) of a row.
template <class T>
HWY_INLINE V32 LoadWide(const T* row, Index x) {
  return Widened<T>(hn::LoadU(StoredTag<T>(), Lane(row + x)));
}
// The first n of them, n < Lanes(); the others are 0.
template <class T>
HWY_INLINE V32 LoadWideTail(const T* row, Index x, Index n) {
  return Widened<T>(hn::LoadN(StoredTag<T>(), Lane(row + x), static_cast<size_t>(n)));
}

// Elements [at, at + Lanes()) of a group, where a vector has at most 16 lanes: they lie in one half
// of it.
HWY_INLINE V32 FromGroup(const Int4Group& group, Index at) {
  const F32 d;
  const hn::RebindToSigned<F32> di;
  const hn::Rebind<std::uint8_t, F32> du8;
  const hn::Rebind<std::uint16_t, F32> du16;
  const auto scale =
      Widened<Float16>(hn::BitCast(StoredTag<Float16>(), hn::Set(du16, group.scale.bits)));
  const auto bytes = hn::PromoteTo(di, hn::LoadU(du8, group.nibbles + at % 16));
  const auto nibbles = at < 16 ? hn::And(bytes, hn::Set(di, 15)) : hn::ShiftRight<4>(bytes);
  return hn::Mul(hn::ConvertTo(d, hn::Sub(nibbles, hn::Set(di, 8))), scale);
}
// x is a multiple of Lanes(), which divides the depth.
template <>
HWY_INLINE V32 LoadWide(const Int4Group* row, Index x) {
  return FromGroup(row[x / Int4Group::kSize], x % Int4Group::kSize);
}
template <>
HWY_INLINE V32 LoadWideTail(const Int4Group*, Index, Index) {
  return hn::Zero(F32());  // there is none
}

// How many vectors are read together: of a group all, so that its scale is read once.
template <class T>
inline constexpr Index kTogether = 1;
#if !HWY_HAVE_SCALABLE && HWY_TARGET != HWY_SCALAR
template <>
inline constexpr Index kTogether<Int4Group> = Int4Group::kSize / hn::MaxLanes(F32());
#endif

// These vectors, from element x of a row on.
template <class T>
class Together {
 public:
  HWY_INLINE Together(const T* row, Index x) : row_(row), x_(x) {}
  template <size_t kVector>
  HWY_INLINE V32 Nth() const {
    if constexpr (kTogether<T> > 1) {
      return FromGroup(row_[x_ / Int4Group::kSize], kVector * hn::MaxLanes(F32()));
    } else {
      return LoadWide(row_, x_);
    }
  }

 private:
  const T* row_;
  Index x_;
};
#if !HWY_HAVE_SCALABLE && HWY_MAX_BYTES == 64
// The 16 numbers of a group are one vector, in which nibbles are looked up: by the lowest four bits
// of each lane, so that nothing else is to be cleared.
template <>
class Together<Int4Group> {
 public:
  HWY_INLINE Together(const Int4Group* row, Index x) {
    const F32 d;
    const hn::CappedTag<float, 4> d4;
    const Int4Group& group = row[x / Int4Group::kSize];
    // In memory, from where it costs no shuffle to have it in all lanes.
    HWY_ALIGN float scale[4];
    hn::Store(hn::PromoteTo(
                  d4, hn::LoadU(hn::Rebind<hwy::float16_t, decltype(d4)>(), Lane(&group.scale))),
              d4, scale);
    asm("" : "+m"(scale));
    numbers_ = hn::Mul(hn::Iota(d, -8.0f), hn::Set(d, *scale));
    bytes_ = hn::PromoteTo(hn::RebindToUnsigned<F32>(),
                           hn::LoadU(hn::Rebind<std::uint8_t, F32>(), group.nibbles));
  }
  template <size_t kVector>
  HWY_INLINE V32 Nth() const {
    // Not a shift, which clang would do to bytes, and extend these a second time.
    const auto nibbles = kVector == 0 ? bytes_ : hn::RotateRight<4>(bytes_);
    return hn::TableLookupLanes(numbers_, hn::Indices512<float>{nibbles.raw});
  }

 private:
  V32 numbers_;
  hn::Vec<hn::RebindToUnsigned<F32>> bytes_;
};
#endif

// Row i.
template <class T>
HWY_INLINE const T* RowAt(const StoredRows& rows, Index i) {
  const std::byte* first = rows.first;
  if (const RowPages& pages = rows.pages; pages.table != nullptr) {
    i += pages.begin;
    const Index page = i * pages.inverse >> RowPages::kShift;
    first += pages.table[page * pages.table_stride] * pages.stride;
    i -= page * pages.size;
  }
  return reinterpret_cast<const T*>(first + i * rows.stride);
}

// How many rows from row i on are at equal distances.
HWY_INLINE Index RowsTogether(const StoredRows& rows, Index i) {
  const RowPages& pages = rows.pages;
  return pages.table == nullptr ? std::numeric_limits<Index>::max() / 2
                                : pages.size - (pages.begin + i) % pages.size;
}
template <class T>
HWY_INLINE const T* After(const T* row, Index stride) {
  return reinterpret_cast<const T*>(reinterpret_cast<const std::byte*>(row) + stride);
}

// Rows i, i + 1, ... one after the other; after the last one it stays there.
template <class T>
class RowCursor {
 public:
  HWY_INLINE RowCursor(const StoredRows& rows, Index i, Index last) : rows_(rows), last_(last) {
    if (last >= 0) Jump(i);
  }
  HWY_INLINE const T* Row() const { return row_; }
  HWY_INLINE void Next() {
    if (--left_ == 0) {
      Jump(next_);
    } else {
      row_ = After(row_, rows_.stride);
    }
  }
  // To memory, and out of registers that a loop needs.
  HWY_INLINE void Leave() { asm("" : "+m"(*this)); }

 private:
  HWY_INLINE void Jump(Index i) {
    i = HWY_MIN(i, last_);
    row_ = RowAt<T>(rows_, i);
    left_ = HWY_MIN(last_ + 1 - i, RowsTogether(rows_, i));
    next_ = i + left_;
  }

  const StoredRows& rows_;
  const T* row_ = nullptr;
  Index last_, next_ = 0, left_ = 0;  // rows until it must look where the next one lies
};

// Bytes of n elements, n a multiple of 32 for int4.
template <class T>
constexpr Index BytesOf(Index n) {
  return n / (std::is_same_v<T, Int4Group> ? Int4Group::kSize : 1) * static_cast<Index>(sizeof(T));
}

// The cache line of element x of a row.
template <class T>
HWY_INLINE void PrefetchToL2(const T* row, Index x) {
  PrefetchToL2(reinterpret_cast<const char*>(row) + BytesOf<T>(x));
}

// All n elements.
template <class T>
HWY_INLINE void AskForRow(const T* row, Index n) {
  constexpr Index kLine = 64;
  for (Index byte = 0; byte < BytesOf<T>(n); byte += kLine)
    PrefetchToL2(reinterpret_cast<const char*>(row) + byte);
}

// Calls visit(T()) for the type.
template <class Visit>
HWY_INLINE void ForType(Type type, const Visit& visit) {
  switch (type) {
    case Type::bf16:
      return visit(BFloat16());
    case Type::f16:
      return visit(Float16());
    case Type::int8:
      return visit(std::int8_t());
    case Type::int4:
      return visit(Int4Group());
    case Type::f32:
      return visit(float());
  }
}

// n elements as floats.
inline void WidenRow(Type type, const void* from, Index n, float* to) {
  if (type == Type::int4 && Lanes() > 16) {
    const auto* groups = static_cast<const Int4Group*>(from);
    for (Index i = 0; i < n; i += Int4Group::kSize, ++groups, to += Int4Group::kSize) {
      const float scale = to_float(groups->scale);
      for (int half = 0; half < 16; ++half) {
        to[half] = scale * static_cast<float>((groups->nibbles[half] & 15) - 8);
        to[half + 16] = scale * static_cast<float>((groups->nibbles[half] >> 4) - 8);
      }
    }
    return;
  }
  ForType(type, [&](auto t) HWY_ATTR {
    const auto* source = static_cast<const decltype(t)*>(from);
    const Index lanes = Lanes();
    Index i = 0;
    for (; i + lanes <= n; i += lanes) hn::StoreU(LoadWide(source, i), F32(), to + i);
    if (i < n) StoreTail(LoadWideTail(source, i, n - i), to + i, n - i);
  });
}

// n floats, to f32, bf16 or f16, the nearest.
inline void NarrowRow(Type type, const float* from, Index n, void* to) {
  if (type == Type::bf16) {
    for (Index i = 0; i < n; ++i) static_cast<BFloat16*>(to)[i] = to_bf16(from[i]);
  } else if (type == Type::f16) {
    for (Index i = 0; i < n; ++i) static_cast<Float16*>(to)[i] = to_f16(from[i]);
  } else {
    for (Index i = 0; i < n; ++i) static_cast<float*>(to)[i] = from[i];
  }
}

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
