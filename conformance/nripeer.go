// The Go side of test_nri.py, on containerd/nri's own library: a plugin (`plugin NAME INDEX SOCKET`), and what a runtime with that
// library makes of plugins' answers (`adapt`: a case of JSON a line, the outcome a line).
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/adaptation/builtin"
	"github.com/containerd/nri/pkg/api"
	generate "github.com/containerd/nri/pkg/runtime-tools/generate"
	"github.com/containerd/nri/pkg/stub"
	rspec "github.com/opencontainers/runtime-spec/specs-go"
	rgen "github.com/opencontainers/runtime-tools/generate"
	"google.golang.org/protobuf/encoding/protojson"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// plugin writes down what it is told, and adds a variable and an annotation to each container.
type plugin struct {
	sync.Mutex
	stub stub.Stub
}

func (p *plugin) say(what string, ids ...string) {
	p.Lock()
	defer p.Unlock()
	line, err := json.Marshal(append([]string{what}, ids...))
	check(err)
	fmt.Println(string(line))
}

func (p *plugin) Configure(_ context.Context, config, runtime, version string) (api.EventMask, error) {
	p.say("Configure", config, runtime, version)
	return 0, nil
}

func (p *plugin) Synchronize(_ context.Context, pods []*api.PodSandbox, ctrs []*api.Container) ([]*api.ContainerUpdate, error) {
	ids := []string{}
	for _, pod := range pods {
		ids = append(ids, pod.Id)
	}
	for _, ctr := range ctrs {
		ids = append(ids, ctr.Id)
	}
	p.say("Synchronize", ids...)
	return nil, nil
}

func (p *plugin) Shutdown(context.Context) { p.say("Shutdown") }

func (p *plugin) RunPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	p.say("RunPodSandbox", pod.Id)
	return nil
}

func (p *plugin) StopPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	p.say("StopPodSandbox", pod.Id)
	return nil
}

func (p *plugin) RemovePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	p.say("RemovePodSandbox", pod.Id)
	return nil
}

func (p *plugin) CreateContainer(_ context.Context, _ *api.PodSandbox, ctr *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	p.say("CreateContainer", ctr.Id)
	adjust := &api.ContainerAdjustment{}
	adjust.AddEnv("STUB", "from go")
	adjust.AddAnnotation("large", ctr.Annotations["large"])
	if ctr.Annotations["refuse"] != "" {
		return nil, nil, fmt.Errorf("refused by its annotation")
	}
	return adjust, nil, nil
}

func (p *plugin) PostCreateContainer(_ context.Context, _ *api.PodSandbox, ctr *api.Container) error {
	p.say("PostCreateContainer", ctr.Id)
	return nil
}

func (p *plugin) StartContainer(_ context.Context, _ *api.PodSandbox, ctr *api.Container) error {
	p.say("StartContainer", ctr.Id)
	return nil
}

// PostStartContainer asks for a change of its own accord.
func (p *plugin) PostStartContainer(_ context.Context, _ *api.PodSandbox, ctr *api.Container) error {
	p.say("PostStartContainer", ctr.Id)
	update := &api.ContainerUpdate{}
	update.SetContainerId(ctr.Id)
	update.SetLinuxCPUShares(333)
	other := &api.ContainerUpdate{}
	other.SetContainerId("nobody")
	other.SetLinuxCPUShares(333)
	failed, err := p.stub.UpdateContainers([]*api.ContainerUpdate{update, other})
	if err != nil {
		return err
	}
	for _, one := range failed {
		p.say("failed", one.ContainerId)
	}
	return nil
}

func (p *plugin) UpdateContainer(_ context.Context, _ *api.PodSandbox, ctr *api.Container, r *api.LinuxResources) ([]*api.ContainerUpdate, error) {
	p.say("UpdateContainer", ctr.Id, fmt.Sprint(r.GetCpu().GetQuota().GetValue()))
	update := &api.ContainerUpdate{}
	update.SetContainerId(ctr.Id)
	update.SetLinuxCPUShares(444)
	return []*api.ContainerUpdate{update}, nil
}

func (p *plugin) PostUpdateContainer(_ context.Context, _ *api.PodSandbox, ctr *api.Container) error {
	p.say("PostUpdateContainer", ctr.Id, fmt.Sprint(ctr.GetLinux().GetResources().GetCpu().GetShares().GetValue()))
	return nil
}

func (p *plugin) StopContainer(_ context.Context, _ *api.PodSandbox, ctr *api.Container) ([]*api.ContainerUpdate, error) {
	p.say("StopContainer", ctr.Id)
	return nil, nil
}

func (p *plugin) RemoveContainer(_ context.Context, _ *api.PodSandbox, ctr *api.Container) error {
	p.say("RemoveContainer", ctr.Id)
	return nil
}

func (p *plugin) ValidateContainerAdjustment(_ context.Context, r *api.ValidateContainerAdjustmentRequest) error {
	owner, _ := r.Owners.EnvOwner(r.Container.Id, "STUB")
	p.say("ValidateContainerAdjustment", r.Container.Id, owner)
	return nil
}

func beAPlugin(name, index, socket string) {
	p := &plugin{}
	var err error
	p.stub, err = stub.New(p, stub.WithPluginName(name), stub.WithPluginIdx(index), stub.WithSocketPath(socket))
	check(err)
	check(p.stub.Run(context.Background()))
}

// What a case has, and what comes of it.
type adaptCase struct {
	Container json.RawMessage   `json:"container"`
	Answers   []json.RawMessage `json:"answers"` // of CreateContainer, in the order of the plugins
	Spec      *rspec.Spec       `json:"spec"`
}

type outcome struct {
	Error string          `json:"error,omitempty"`
	Seen  json.RawMessage `json:"seen,omitempty"` // the container as one more plugin at the end sees it
	Spec  *rspec.Spec     `json:"spec,omitempty"`
}

func adaptOne(c *adaptCase) (*outcome, error) {
	ctr := &api.Container{}
	if err := protojson.Unmarshal(c.Container, ctr); err != nil {
		return nil, err
	}
	var seen []byte
	plugins := []*builtin.BuiltinPlugin{}
	for i, raw := range c.Answers {
		answer := &api.CreateContainerResponse{}
		if err := protojson.Unmarshal(raw, answer); err != nil {
			return nil, err
		}
		plugins = append(plugins, &builtin.BuiltinPlugin{
			Base:  "plugin",
			Index: fmt.Sprintf("%02d", i),
			Handlers: builtin.BuiltinHandlers{
				CreateContainer: func(context.Context, *api.CreateContainerRequest) (*api.CreateContainerResponse, error) {
					return answer, nil
				},
			},
		})
	}
	plugins = append(plugins, &builtin.BuiltinPlugin{
		Base:  "last",
		Index: "99",
		Handlers: builtin.BuiltinHandlers{
			CreateContainer: func(_ context.Context, r *api.CreateContainerRequest) (*api.CreateContainerResponse, error) {
				var err error
				seen, err = protojson.Marshal(r.Container)
				return nil, err
			},
		},
	})
	sync := func(ctx context.Context, cb adaptation.SyncCB) error {
		_, err := cb(ctx, nil, nil)
		return err
	}
	update := func(context.Context, []*api.ContainerUpdate) ([]*api.ContainerUpdate, error) { return nil, nil }
	r, err := adaptation.New("test", "1", sync, update,
		adaptation.WithPluginPath("/nowhere"), adaptation.WithDisabledExternalConnections(), adaptation.WithBuiltinPlugins(plugins...))
	if err != nil {
		return nil, err
	}
	if err := r.Start(); err != nil {
		return nil, err
	}
	defer r.Stop()
	answer, err := r.CreateContainer(context.Background(), &api.CreateContainerRequest{Pod: &api.PodSandbox{}, Container: ctr})
	if err != nil {
		return &outcome{Error: err.Error()}, nil
	}
	spec := c.Spec
	gen := generate.SpecGenerator(&rgen.Generator{Config: spec})
	if err := gen.Adjust(answer.Adjust); err != nil {
		return &outcome{Error: err.Error()}, nil
	}
	return &outcome{Seen: seen, Spec: spec}, nil
}

func adapt() {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(make([]byte, 1<<20), 1<<24)
	for in.Scan() {
		c := &adaptCase{}
		check(json.Unmarshal(in.Bytes(), c))
		found, err := adaptOne(c)
		check(err)
		line, err := json.Marshal(found)
		check(err)
		fmt.Println(string(line))
	}
	check(in.Err())
}

func main() {
	if os.Args[1] == "adapt" {
		adapt()
		return
	}
	beAPlugin(os.Args[2], os.Args[3], os.Args[4])
}
