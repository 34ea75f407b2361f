"""The stages of a build, each a module of its own name with helpers beside it: data, train, …, publish.

    data        sources, arrays, images, tables: reading; rows, batches: what need not be in memory
    train       fitting, augmentation, schedules, precision; devices, hosts, together, interrupts: where; backend
    compress    folding, structured, low_rank, pruning, grids, activations; recovery, projection: their training;
                layers, chains, layer_table
      auto      search, candidates, growing, measuring, trials, search_budget, search_state
    quantize    export, constant_shapes, unroll; convert, converter_process, kept_process; one_row; int4; blame, advice
    evaluate    build_source, source_answers, source_process, sources_loaded, saved_model_check, comparison: the root;
                loss, inspection: of an import; interpreter, interpreter_process, array_files, flatbuffer
    verify      probe, latency
    publish     storing, report, charts

A stage takes what the stages before it made, as plain dataclasses, and knows nothing of the ones after it.
TensorFlow is imported by the functions that need it, never at a module's top.
"""
