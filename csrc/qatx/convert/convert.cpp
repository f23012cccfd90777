#include "qatx/convert/convert.h"

#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/passes/lower_graph.h>
#include <torch/csrc/jit/passes/remove_mutation.h>
#include <torch/csrc/jit/passes/shape_analysis.h>

#include <algorithm>
#include <memory>
#include <unordered_set>

#include "qatx/convert/inline.h"
#include "qatx/convert/lowering.h"
#include "qatx/engine/program.h"

namespace qatx {
namespace {

namespace jit = torch::jit;

// The traced graph, inlined, without submodules or in-place writes; parameters are inputs behind
// the true ones.
struct Source {
  std::shared_ptr<jit::Graph> graph;
  size_t input_count;
  torchscript::Constants constants;
};

void check_no_mutation(const jit::Block* block) {
  for (const jit::Node* node : block->nodes()) {
    const auto* schema = node->maybeSchema();
    TORCH_CHECK_VALUE(!schema || !schema->is_mutable(),
                      "qatx.convert: the model writes in place with ", node->kind().toQualString(),
                      ", which cannot be removed; use the form that returns a new tensor");
    for (const jit::Block* inner : node->blocks()) check_no_mutation(inner);
  }
}

Source read_source(const jit::Module& module) {
  TORCH_CHECK_VALUE(!module.hasattr("program_0"), "qatx.convert: the model is converted already");
  auto method_graph = module.get_method("forward").graph()->copy();
  torchscript::inline_modules(*method_graph);
  auto [graph, parameters] = jit::LowerGraph(*method_graph, module._ivalue());
  jit::RemoveTensorMutation(graph);
  jit::EliminateDeadCode(graph);
  check_no_mutation(graph->block());
  Source source{graph, graph->inputs().size() - parameters.size(), {}};
  for (size_t i = 0; i < parameters.size(); ++i) {
    const c10::IValue& p = parameters[i];
    source.constants.set(graph->inputs()[source.input_count + i],
                         p.isTensor() ? c10::IValue(p.toTensor().detach()) : p);
  }
  return source;
}

torchscript::TensorTypes example_types(Source& source,
                                       const std::vector<c10::IValue>& example_inputs) {
  TORCH_CHECK_VALUE(example_inputs.size() == source.input_count, "qatx.convert: the model takes ",
                    source.input_count, " inputs, got ", example_inputs.size(), " example inputs");
  std::unordered_map<const jit::Value*, c10::IValue> known;
  for (size_t i = 0; i < source.graph->inputs().size(); ++i) {
    const jit::Value* input = source.graph->inputs()[i];
    known[input] = i < source.input_count ? example_inputs[i] : source.constants.get(input).value();
  }
  return torchscript::record_types(*source.graph, std::move(known));
}

// Values that a node uses, those inside its blocks included.
void visit_uses(jit::Node* node, const auto& visit) {
  for (jit::Value* input : node->inputs()) visit(input);
  for (jit::Block* block : node->blocks()) {
    for (jit::Node* inner : block->nodes()) visit_uses(inner, visit);
    visit_uses(block->return_node(), visit);
  }
}

// Finds what the outputs need, and makes island values that float nodes need outputs of their
// islands. Returns the float nodes that are needed.
std::unordered_set<const jit::Node*> find_needed(jit::Graph& graph,
                                                 torchscript::Lowering& lowering) {
  std::unordered_set<const jit::Node*> needed;
  std::unordered_set<size_t> needed_islands;
  const auto need = [&](const auto& self, jit::Value* value) -> void {
    jit::Node* node = value->node();
    if (const auto island = lowering.island_of(node)) {
      lowering.add_output(*island, value);
      if (!needed_islands.insert(*island).second) return;
      for (jit::Value* input : lowering.islands()[*island].inputs) self(self, input);
    } else if (node->kind() != c10::prim::Param && needed.insert(node).second) {
      visit_uses(node, [&](jit::Value* input) { self(self, input); });
    }
  };
  visit_uses(graph.return_node(), [&](jit::Value* value) { need(need, value); });
  return needed;
}

// Writes the new graph: float nodes copied, each island a call of its program.
class Assembler {
 public:
  Assembler(Source& source, torchscript::Lowering& lowering)
      : source_(source), lowering_(lowering), needed_(find_needed(*source.graph, lowering)) {
    lowering.finish();
  }

  jit::Module assemble() {
    jit::Module module("__torch__.qatx.Converted");
    module.register_attribute("training", c10::BoolType::get(), false);
    self_ = graph_->addInput("self")->setType(module.type());
    for (size_t i = 0; i < source_.input_count; ++i) {
      const jit::Value* input = source_.graph->inputs()[i];
      values_[input] = graph_->addInput(input->debugNameBase())->setType(input->type());
    }
    const auto& islands = lowering_.islands();
    for (size_t level = 0; level <= islands.size(); ++level) {
      for (jit::Node* node : source_.graph->nodes()) {
        if (needed_.contains(node) && lowering_.level_of(node) == level) copy(node);
      }
      if (level < islands.size() && !islands[level].outputs.empty()) {
        add_program(module, level, islands[level]);
      }
    }
    for (jit::Value* output : source_.graph->outputs()) graph_->registerOutput(value(output));
    // Sizes that tracing saw are no promise about the sizes to come.
    jit::EraseShapeInformation(graph_);
    graph_->lint();
    auto* function = module._ivalue()->compilation_unit()->create_function(
        c10::QualifiedName(*module.type()->name(), "forward"), graph_);
    module.type()->addMethod(function);
    return module;
  }

 private:
  // The new graph's value for one of the old graph.
  jit::Value* value(const jit::Value* old) {
    if (const auto found = values_.find(old); found != values_.end()) return found->second;
    // A parameter, or one of the values that a block makes and createClone maps itself.
    const auto constant = source_.constants.get(old);
    TORCH_INTERNAL_ASSERT(constant, "qatx.convert: lost value ", old->debugName());
    return values_[old] = graph_->insertConstant(*constant);
  }

  void copy(jit::Node* node) {
    jit::Node* clone =
        graph_->insertNode(graph_->createClone(node, [&](jit::Value* v) { return value(v); }));
    for (size_t i = 0; i < node->outputs().size(); ++i) {
      values_[node->outputs()[i]] = clone->outputs()[i];
    }
  }

  void add_program(jit::Module& module, size_t level, const torchscript::Island& island) {
    const std::string name = "program_" + std::to_string(level);
    const c10::IValue program(c10::make_intrusive<engine::Program>(island.graph));
    module.register_attribute(name, program.type(), program);
    std::vector<jit::Value*> inputs;
    for (const jit::Value* input : island.inputs) inputs.push_back(value(input));
    jit::Value* list =
        graph_->insertNode(graph_->createList(c10::TensorType::get(), inputs))->output();
    jit::Value* object = graph_->insertGetAttr(self_, name);
    jit::Value* results =
        graph_->insert(c10::Symbol::fromQualString("qatx::run_program"), {object, list});
    jit::Node* unpack =
        graph_->insertNode(graph_->createListUnpack(results, island.outputs.size()));
    for (size_t i = 0; i < island.outputs.size(); ++i) {
      values_[island.outputs[i]] = unpack->outputs()[i];
    }
  }

  Source& source_;
  torchscript::Lowering& lowering_;
  std::unordered_set<const jit::Node*> needed_;
  std::shared_ptr<jit::Graph> graph_ = std::make_shared<jit::Graph>();
  jit::Value* self_ = nullptr;
  std::unordered_map<const jit::Value*, jit::Value*> values_;
};

}  // namespace

Converted convert(const jit::Module& traced, const std::vector<c10::IValue>& example_inputs) {
  const at::NoGradGuard no_grad;
  Source source = read_source(traced);
  torchscript::Lowering lowering(*source.graph, source.constants,
                                 example_types(source, example_inputs));
  jit::Module module = Assembler(source, lowering).assemble();
  return {std::move(module), {lowering.take_report()}};
}

}  // namespace qatx
