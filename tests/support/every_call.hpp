// One call of every function of the C ABI that can fail, each with arguments that are right: for
// tests of what must hold for all of them.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "rapt/rapt.h"

namespace rapt::tests {

class EveryCall {
 public:
  struct Call {
    const char* name;
    std::function<rapt_status()> run;
  };
  std::vector<Call> calls;

  // Of heads with seq queries and keys, on that executor.
  explicit EveryCall(std::int64_t seq, const rapt_executor* executor = nullptr) : seq_(seq) {
    options_.executor = executor;
    options_.causal = 1;
    gemm_backward_options_.executor = executor;
    gemm_options_.executor = rope_options_.executor = append_options_.executor = executor;
    append_options_.kv_lengths = &no_keys_;
    append_options_.rope = &rotation_;
    rotation_.dims = kDepth;

    add("rapt_attention", [this] { return rapt_attention(&q_, &q_, &q_, &out_, &options_); });
    add("rapt_attention_backward", [this] {
      return rapt_attention_backward(&q_, &q_, &q_, &q_, &row_, &q_, &out_, &other_, &grad_,
                                     &options_, nullptr);
    });
    add("rapt_salience_map",
        [this] { return rapt_salience_map(&q_, &q_, &salience_, &options_, nullptr, nullptr); });
    add("rapt_explain", [this] {
      return rapt_explain(&q_, &q_, &q_, &out_, &options_, text_, sizeof(text_), nullptr);
    });
    add("rapt_explain_backward", [this] {
      return rapt_explain_backward(&q_, &q_, &q_, &q_, &row_, &q_, &out_, &other_, &grad_,
                                   &options_, nullptr, text_, sizeof(text_), nullptr);
    });
    add_backward_plan("rapt_plan_create_backward", [](rapt_plan*) { return RAPT_OK; });
    add_backward_plan("rapt_plan_run_backward", [](rapt_plan* plan) {
      return rapt_plan_run_backward(plan, nullptr, nullptr, 0);
    });
    add_plan("rapt_plan_create", [](rapt_plan*) { return RAPT_OK; });
    add_plan("rapt_plan_run",
             [](rapt_plan* plan) { return rapt_plan_run(plan, nullptr, nullptr, 0); });
    add_plan("rapt_plan_workspace_bytes", [](rapt_plan* plan) {
      std::size_t bytes = 0;
      return rapt_plan_workspace_bytes(plan, &bytes);
    });
    add_plan("rapt_plan_explain", [this](rapt_plan* plan) {
      return rapt_plan_explain(plan, text_, sizeof(text_), nullptr);
    });
    add_plan("rapt_plan_explanation", [](rapt_plan* plan) {
      auto explanation = sized<rapt_explanation>();
      return rapt_plan_explanation(plan, &explanation);
    });
    add_plan("rapt_plan_cut", [](rapt_plan* plan) {
      auto cut = sized<rapt_cut>();
      return rapt_plan_cut(plan, 0, &cut);
    });
    add("rapt_merge", [this, executor] {
      const rapt_attention_part parts[] = {{&q_, &row_}, {&q_, &row_}};
      return rapt_merge(parts, 2, &out_, nullptr, executor);
    });
    add("rapt_rope", [this] { return rapt_rope(&q_, &out_, &rotation_, &rope_options_); });
    add("rapt_append_kv",
        [this] { return rapt_append_kv(&q_, &q_, &out_, &other_, &append_options_); });
    add("rapt_quantize", [this, executor] { return rapt_quantize(&q_, &int8_, &row_, executor); });
    add("rapt_dequantize",
        [this, executor] { return rapt_dequantize(&int8_, &row_, &out_, executor); });
    add("rapt_convert", [this, executor] { return rapt_convert(&q_, &out_, executor); });
    add("rapt_gemm", [this] { return rapt_gemm(&tokens_, &square_, &result_, &gemm_options_); });
    add("rapt_gemm_backward", [this] {
      return rapt_gemm_backward(&tokens_, &square_, &tokens_, &result_, nullptr,
                                &gemm_backward_options_);
    });
    add_layer("rapt_layer_create", [this](rapt_layer* drawn) {
      auto parameters = sized<rapt_layer_parameters>();
      rapt_layer_get_parameters(drawn, &parameters);
      rapt_layer* layer = nullptr;
      const rapt_status status = rapt_layer_create(&layer, &shape_, &parameters);
      rapt_layer_destroy(layer);
      return status;
    });
    add_layer("rapt_layer_create_random", [](rapt_layer*) { return RAPT_OK; });
    add_layer("rapt_layer_get_parameters", [](rapt_layer* layer) {
      auto parameters = sized<rapt_layer_parameters>();
      return rapt_layer_get_parameters(layer, &parameters);
    });
    add_layer("rapt_layer_get_shape", [](rapt_layer* layer) {
      auto shape = sized<rapt_layer_shape>();
      return rapt_layer_get_shape(layer, &shape);
    });
    add_layer("rapt_layer_run", [this](rapt_layer* layer) {
      return rapt_layer_run(layer, &tokens_, &tokens_, &tokens_, &result_, &options_);
    });
    add("rapt_layer_activations_create", [] {
      rapt_layer_activations* kept = nullptr;
      const rapt_status status = rapt_layer_activations_create(&kept);
      rapt_layer_activations_destroy(kept);
      return status;
    });
    add_training("rapt_layer_forward",
                 [](rapt_layer*, rapt_layer_activations*) { return RAPT_OK; });
    add_training("rapt_layer_backward", [this](rapt_layer* layer, rapt_layer_activations* kept) {
      auto gradients = sized<rapt_layer_gradients>();
      gradients.k_tokens = &result_;
      return rapt_layer_backward(layer, &tokens_, &tokens_, &tokens_, kept, &tokens_, &gradients,
                                 &options_, nullptr);
    });
    add("rapt_test_executor", [] { return rapt_test_executor(rapt_serial_executor()); });
    add("rapt_set_allocator", [] { return rapt_set_allocator(nullptr); });
    add("rapt_targets", [this] { return rapt_targets(text_, sizeof(text_), nullptr); });
    add("rapt_target", [this] { return rapt_target(text_, sizeof(text_), nullptr); });
    add("rapt_set_target", [this] {
      const rapt_status status = rapt_target(text_, sizeof(text_), nullptr);
      return status == RAPT_OK ? rapt_set_target(text_) : status;
    });
    add("rapt_config_text", [this] { return rapt_config_text(text_, sizeof(text_), nullptr); });
    add("rapt_config_report", [this] {
      rapt_config_fields fields = sized<rapt_config_fields>();
      return rapt_config_report(&fields, text_, sizeof(text_), nullptr);
    });
    add("rapt_load_config", [] { return rapt_load_config(""); });
  }

  // What the calls of attention wrote.
  const std::vector<float>& out() const { return out_data_; }

 private:
  static constexpr std::int64_t kHeads = 4, kDepth = 64;

  template <class Struct>
  static Struct sized() {
    Struct all{};
    all.size = sizeof(all);
    return all;
  }
  static rapt_array array(void* data, std::int32_t type, std::initializer_list<std::int64_t> all) {
    return rapt_dense(data, type, static_cast<int>(all.size()), all.begin());
  }

  void add(const char* name, std::function<rapt_status()> run) {
    calls.push_back({name, std::move(run)});
  }
  template <class Run>
  void add_plan(const char* name, Run run) {
    add(name, [this, run] {
      rapt_plan* plan = nullptr;
      rapt_status status = rapt_plan_create(&plan, &q_, &q_, &q_, &out_, &options_);
      if (status == RAPT_OK) status = run(plan);
      rapt_plan_destroy(plan);
      return status;
    });
  }
  template <class Run>
  void add_backward_plan(const char* name, Run run) {
    add(name, [this, run] {
      rapt_plan* plan = nullptr;
      rapt_status status = rapt_plan_create_backward(&plan, &q_, &q_, &q_, &q_, &row_, &q_, &out_,
                                                     &other_, &grad_, &options_, nullptr);
      if (status == RAPT_OK) status = run(plan);
      rapt_plan_destroy(plan);
      return status;
    });
  }
  template <class Run>
  void add_layer(const char* name, Run run) {
    add(name, [this, run] {
      rapt_layer* layer = nullptr;
      rapt_status status = rapt_layer_create_random(&layer, &shape_, 1);
      if (status == RAPT_OK) status = run(layer);
      rapt_layer_destroy(layer);
      return status;
    });
  }
  template <class Run>
  void add_training(const char* name, Run run) {
    add_layer(name, [this, run](rapt_layer* layer) {
      rapt_layer_activations* kept = nullptr;
      rapt_status status = rapt_layer_activations_create(&kept);
      if (status == RAPT_OK)
        status = rapt_layer_forward(layer, &tokens_, &tokens_, &tokens_, &result_, kept, &options_);
      if (status == RAPT_OK) status = run(layer, kept);
      rapt_layer_activations_destroy(kept);
      return status;
    });
  }

  static std::vector<float> numbers(std::int64_t n) {
    std::vector<float> all(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<float>(i * 37 % 101) / 64 - 1;
    return all;
  }

  const std::int64_t seq_;
  std::vector<float> q_data_ = numbers(kHeads * seq_ * kDepth), out_data_ = q_data_,
                     other_data_ = q_data_, grad_data_ = q_data_,
                     row_data_ = numbers(kHeads * seq_),
                     salience_data_ = numbers(kHeads * seq_ * seq_);
  std::vector<std::int8_t> int8_data_ = std::vector<std::int8_t>(q_data_.size());
  rapt_array q_ = array(q_data_.data(), RAPT_F32, {kHeads, seq_, kDepth});
  rapt_array out_ = array(out_data_.data(), RAPT_F32, {kHeads, seq_, kDepth});
  rapt_array other_ = array(other_data_.data(), RAPT_F32, {kHeads, seq_, kDepth});
  rapt_array grad_ = array(grad_data_.data(), RAPT_F32, {kHeads, seq_, kDepth});
  rapt_array int8_ = array(int8_data_.data(), RAPT_INT8, {kHeads, seq_, kDepth});
  rapt_array row_ = array(row_data_.data(), RAPT_F32, {kHeads, seq_});
  rapt_array salience_ = array(salience_data_.data(), RAPT_F32, {kHeads, seq_, seq_});
  rapt_array tokens_ = array(q_data_.data(), RAPT_F32, {seq_, kDepth});
  rapt_array square_ = array(q_data_.data(), RAPT_F32, {kDepth, kDepth});
  rapt_array result_ = array(other_data_.data(), RAPT_F32, {seq_, kDepth});
  std::int32_t zero_ = 0;
  rapt_array no_keys_ = array(&zero_, RAPT_INT32, {});
  rapt_attention_options options_ = sized<rapt_attention_options>();
  rapt_gemm_options gemm_options_ = sized<rapt_gemm_options>();
  rapt_gemm_backward_options gemm_backward_options_ = sized<rapt_gemm_backward_options>();
  rapt_rope_options rope_options_ = sized<rapt_rope_options>();
  rapt_append_options append_options_ = sized<rapt_append_options>();
  rapt_rotation rotation_ = sized<rapt_rotation>();
  rapt_layer_shape shape_ = {sizeof(rapt_layer_shape), kDepth, 16, 2, 8, 8};
  char text_[1 << 14];
};

}  // namespace rapt::tests
