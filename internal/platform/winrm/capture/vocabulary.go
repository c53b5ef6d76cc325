package capture

import "strings"

// vocabulary are words of Windows, Hyper-V and failover clustering, which tell nothing of an owner. A word that is missing
// here is masked, and costs a reader of the capture a guess.
var vocabulary = func() map[string]bool {
	words := map[string]bool{}
	for w := range strings.FieldsSeq(`
a and at by can cannot could for from has have in is it not of on or the this to was with you your

HRESULT x64 x86 AMD64 Intel R TM CPU Xeon Gold Silver Platinum EPYC Core Processor Processors GHz MHz Family Model Stepping GenuineIntel AuthenticAMD GenuineAMD

Microsoft Windows Server Datacenter Standard Enterprise Edition Essentials Core Azure Stack HCI Professional Home Corporation Inc Multiprocessor Uniprocessor Free Checked Service Pack
Operating System Computer Linux Ubuntu Debian Red Hat CentOS Rocky AlmaLinux SUSE Oracle FreeBSD LTS release

root cimv2 virtualization v2 mscluster virtualserver wmi WMI wsman schemas com www http https uuid anonymous role addressing Definition Microsoft

Hyper V Hv VP LP Root VID VM Virtual Machine Machines Configuration Management Hosting Hosted Host Physical Guest Integration Services Integrationsdienste Component Components
Heartbeat Key Value Pair Exchange Time Synchronization Shutdown Backup Volume Snapshot Dynamic Memory Balancer System Total Average Pressure Buffer Current Available Maximum Minimum
Network Adapter Legacy Synthetic Ethernet Port Switch External Internal Private Default SCSI IDE Controller Drive Disk Hard DVD CD Storage Device Partition Extension vhd vhdx avhd avhdx vmcx
vmrs vmgs xml bin iso Realized Planned Recovered Snapshot Template Migration Live Quick Settings Setting Data Information Summary Generation Secure Boot UEFI BIOS Firmware
Running Stopped Paused Saved Starting Stopping Saving Pausing Resuming Off On Enabled Disabled Unknown OK Error Degraded Normal Operational Offline Online Partial Pending Failed
Protocol Version Contact Lost Communication Applications Healthy Critical Warning No

Cluster Clusters Node Nodes Group Groups Resource Resources Name Names IP Address IPv4 IPv6 File Share Witness Quorum Distributed Coordinator Generic Application Script Registry Available
Storage ClusterStorage Volume1 Volume2 Volume3 Volume4 Volume5 Volumes CSVFS CSV NTFS ReFS FAT32 Shared Task Scheduler Replica Broker Cloud Health Pool Infrastructure Scale Out

FullyQualifiedDomainName OSName OSVersion OSMajorVersion OSMinorVersion OSBuildNumber OSPlatformId OSEditionId OSSignature OSVendor OSDistributionName OSDistributionData OSKernelVersion
CSDVersion ServicePackMajor ServicePackMinor SuiteMask ProductType ProcessorArchitecture IntegrationServicesVersion NetworkAddressIPv4 NetworkAddressIPv6 RDPAddressIPv4 RDPAddressIPv6
Msvm CIM Win32 true false null Manual Auto Automatic Own Share Process Kernel Driver LocalSystem LocalService NetworkService NT AUTHORITY BUILTIN Administrators Workgroup WORKGROUP

vmms vmcompute vmicheartbeat vmickvpexchange vmicrdv vmicshutdown vmictimesync vmicvmsession vmicvss clussvc winrm winmgmt w32time lanmanserver lanmanworkstation eventlog rpcss
dnscache dhcp netlogon spooler termservice wuauserv bits mssqlserver sqlserveragent w3svc adws dns kdc ntds dfsr svchost exe dll system32 syswow64 drivers sys k p s netsvcs
WMIProvider WsmWmiPl Provider systemroot %systemroot%
C D E Device HarddiskVolume1 HarddiskVolume2 HarddiskVolume3 HarddiskVolume4 HarddiskVolume5 Harddisk0 Partition1 Boot _Total Total Idle
`) {
		words[strings.ToLower(w)] = true
	}
	return words
}()
