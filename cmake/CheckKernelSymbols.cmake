# Fails when an object file compiled for one instruction set shares code with the rest of the program: an inline
# function, which the linker may take from here for everybody, or a static initialiser, which runs on every CPU.
#   cmake -DNM=<nm> "-DOBJECTS=<file;file>" -P CheckKernelSymbols.cmake
foreach(object ${OBJECTS})
  execute_process(COMMAND "${NM}" --demangle --defined-only "${object}" OUTPUT_VARIABLE symbols
                  COMMAND_ERROR_IS_FATAL ANY)
  # Types W, V and u: weak or unique. DW.ref is a pointer to libstdc++'s exception handler.
  string(REGEX MATCHALL "[^\n]* [WVu] [^\n]*|[^\n]*_GLOBAL__sub_I_[^\n]*|[^\n]*global constructors[^\n]*" bad "${symbols}")
  list(FILTER bad EXCLUDE REGEX " DW[.]ref[.]")
  foreach(symbol ${bad})
    message(SEND_ERROR "${object} shares the symbol ${symbol}")
  endforeach()
endforeach()
