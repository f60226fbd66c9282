"""What a request means: from CRI's PodSandboxConfig and ContainerConfig, an image's configuration and a description of the host
to a config.json, and to what has to be prepared for it.

Pure functions, one file a subject; what must be looked at is asked of a `Lookups`. Every refusal is an `ocirt.errors.Error` whose
subject is the field, as CRI names it (`config.linux.security_context.run_as_group`), and comes before anything is made.

    check_pod, check_container      a request by itself (validate.py)
    pod_of                          what a pod wants: namespaces, host name, sysctls, cgroup (pod.py)
    wanted_volumes                  the images that have to be there as volumes (imagevolumes.py)
    build                           the document, and what else is to be made (build.py)
    resources_of                    the limits alone, for UpdateContainerResources (resources.py)
    exec_process                    the process.json of one more program (execprocess.py)
    encode                          a document as bytes (document.py)
"""
