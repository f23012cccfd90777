#pragma once

#include <string>
#include <utility>
#include <vector>

namespace qatx {

// A table of text: a header, a rule, rows; columns as wide as what they hold, where there is room.
class Table {
 public:
  struct Column {
    std::string name;
    bool right = false;  // aligned to the right
    bool folds = false;  // goes on in the next line where a line would be too long
  };

  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  // As many cells as there are columns.
  void add_row(std::vector<std::string> cells);
  // Lines that end in a newline, without blanks before it. Columns that fold get narrower, but no
  // narrower than 8, until a line has at most `width` characters; 0: never.
  std::string text(size_t width = 0) const;

 private:
  std::vector<size_t> widths_for(size_t width) const;

  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace qatx
