;; Similarity of int8 rows with one int16 query. The query is padded with zeros to a multiple of 16,
;; so the last step of a row may read into the next one without effect.
(module
  (memory (import "env" "memory") 1 65536)

  (func $sum (param $v v128) (result i32)
    (i32.add
      (i32.add (i32x4.extract_lane 0 (local.get $v)) (i32x4.extract_lane 1 (local.get $v)))
      (i32.add (i32x4.extract_lane 2 (local.get $v)) (i32x4.extract_lane 3 (local.get $v)))))

  ;; out[i] = (row i . query) * inverse[i] * scale
  (func (export "similarities")
    (param $rows i32) (param $count i32) (param $dimensions i32) (param $query i32)
    (param $inverse i32) (param $scale f32) (param $out i32)
    (local $end i32) (local $stop i32) (local $x i32) (local $q i32)
    (local $v v128) (local $total v128)
    (local.set $end (i32.add (local.get $out) (i32.shl (local.get $count) (i32.const 2))))
    (local.set $stop (i32.add (local.get $query)
      (i32.shl (i32.and (i32.add (local.get $dimensions) (i32.const 15)) (i32.const -16)) (i32.const 1))))
    (block $done (loop $row
      (br_if $done (i32.ge_u (local.get $out) (local.get $end)))
      (local.set $total (v128.const i32x4 0 0 0 0))
      (local.set $x (local.get $rows))
      (local.set $q (local.get $query))
      (loop $step
        (local.set $v (v128.load align=1 (local.get $x)))
        (local.set $total (i32x4.add (local.get $total) (i32x4.add
          (i32x4.dot_i16x8_s (i16x8.extend_low_i8x16_s (local.get $v)) (v128.load (local.get $q)))
          (i32x4.dot_i16x8_s (i16x8.extend_high_i8x16_s (local.get $v)) (v128.load offset=16 (local.get $q))))))
        (local.set $x (i32.add (local.get $x) (i32.const 16)))
        (local.set $q (i32.add (local.get $q) (i32.const 32)))
        (br_if $step (i32.lt_u (local.get $q) (local.get $stop))))
      (f32.store (local.get $out) (f32.mul
        (f32.mul (f32.convert_i32_s (call $sum (local.get $total))) (f32.load (local.get $inverse)))
        (local.get $scale)))
      (local.set $rows (i32.add (local.get $rows) (local.get $dimensions)))
      (local.set $inverse (i32.add (local.get $inverse) (i32.const 4)))
      (local.set $out (i32.add (local.get $out) (i32.const 4)))
      (br $row))))

  ;; out[i] = 1 / |row i|, 0 for a row of zeros; mask is int16, -1 within a row and 0 in the padding
  (func (export "inverse_norms")
    (param $rows i32) (param $count i32) (param $dimensions i32) (param $mask i32) (param $out i32)
    (local $end i32) (local $stop i32) (local $x i32) (local $q i32) (local $square i32)
    (local $v v128) (local $w v128) (local $total v128)
    (local.set $end (i32.add (local.get $out) (i32.shl (local.get $count) (i32.const 2))))
    (local.set $stop (i32.add (local.get $mask)
      (i32.shl (i32.and (i32.add (local.get $dimensions) (i32.const 15)) (i32.const -16)) (i32.const 1))))
    (block $done (loop $row
      (br_if $done (i32.ge_u (local.get $out) (local.get $end)))
      (local.set $total (v128.const i32x4 0 0 0 0))
      (local.set $x (local.get $rows))
      (local.set $q (local.get $mask))
      (loop $step
        (local.set $v (v128.load align=1 (local.get $x)))
        (local.set $w (v128.and (i16x8.extend_high_i8x16_s (local.get $v)) (v128.load offset=16 (local.get $q))))
        (local.set $v (v128.and (i16x8.extend_low_i8x16_s (local.get $v)) (v128.load (local.get $q))))
        (local.set $total (i32x4.add (local.get $total) (i32x4.add
          (i32x4.dot_i16x8_s (local.get $v) (local.get $v))
          (i32x4.dot_i16x8_s (local.get $w) (local.get $w)))))
        (local.set $x (i32.add (local.get $x) (i32.const 16)))
        (local.set $q (i32.add (local.get $q) (i32.const 32)))
        (br_if $step (i32.lt_u (local.get $q) (local.get $stop))))
      (local.set $square (call $sum (local.get $total)))
      (f32.store (local.get $out) (select
        (f32.div (f32.const 1) (f32.sqrt (f32.convert_i32_s (local.get $square))))
        (f32.const 0)
        (local.get $square)))
      (local.set $rows (i32.add (local.get $rows) (local.get $dimensions)))
      (local.set $out (i32.add (local.get $out) (i32.const 4)))
      (br $row))))
)
